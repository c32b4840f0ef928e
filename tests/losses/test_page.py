"""docs/add_a_loss.md: its programs run from a directory outside of the checkout (and on ranks: tests/dist/
test_own_losses.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from plsc import Entry
from plsc.config import Config
from plsc.registry import LOSSES
from tests.project.docs_kit import ROOT, blocks
from tests.registries import forget_afterwards


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A function: name -> the file of that block of the page, all of them in one directory."""
    for number, block in enumerate(blocks(ROOT / "docs" / "add_a_loss.md")):
        name = re.match(r"# (\w+\.(?:py|yaml))\n", block.text)
        path = tmp_path / (name[1] if name else f"block{number}.{block.language}")
        path.write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return lambda name: tmp_path / name


def run(*command):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=600,
                          env={**kept, "PYTHONPATH": f"{ROOT}:.", "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_three_margins_train(page):
    (script,) = [path for path in page("").glob("block*.python") if "set_loss_type" in path.read_text()]
    run(script.name)


def test_the_test_of_the_example_passes(page):
    run("-c", "import test_easy_margin; test_easy_margin.test_slopes()")


def test_the_settings_are_accepted(page, monkeypatch):
    LOSSES.names()
    forget_afterwards(monkeypatch, LOSSES)
    assert Config.from_yaml("mine.yaml").margins() == (0.9, 0.4, 0.15)
    adaptive = Config.from_yaml("adaptive.yaml").loss()
    assert (type(adaptive).__name__, adaptive.margin, adaptive.h) == ("AdaFace", 0.4, 0.333)
    config = Config.from_yaml("easy.yaml")
    loss = config.loss()
    assert (type(loss).__name__, loss.margin) == ("EasyArcFace", 0.4)
    entry = Entry()  # as the page says it in Python
    entry.set("plugins", ["easy_margin.py"])
    entry.set_loss_type("easy_arcface", margin=0.4)
    assert entry._config == config
