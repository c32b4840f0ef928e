"""What is promised to work without Paddle can be imported without it, and importing changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.project.test_imports import ROOT, WITH_PADDLE, library

# In a room that computes with Paddle, but pure arithmetic itself.
WITHOUT_PADDLE_ALL_THE_SAME = ("plsc.optim.schedule",)

# Imports the modules named. Paddle and matplotlib, which extras install, are refused as if they were not there.
WITHOUT_PADDLE = """
import importlib, logging, os, sys, threading
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("paddle", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import numpy, PIL.Image, yaml  # what they do to the process is theirs
def state():
    return dict(os.environ), sys.excepthook, list(logging.root.handlers), threading.active_count(), os.getcwd()
before, failed = state(), []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{name}: {type(error).__name__}: {error}")
    if state() != before:
        failed.append(f"{name}: importing it changes the process")
        before = state()
sys.exit("\\n".join(failed) or None)
"""


def promised_without_paddle() -> list[str]:
    return [module for module, _ in library(WITH_PADDLE)] + list(WITHOUT_PADDLE_ALL_THE_SAME)


def without_paddle(modules: list[str], folder: Path) -> str:
    """What went wrong when the modules were imported, in an empty folder; an empty text if nothing did."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + WITHOUT_PADDLE, *modules]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (result.returncode == 0) == (result.stderr == ""), result.stderr
    return result.stderr


def test_what_needs_no_paddle_is_imported_without_it(tmp_path):
    modules = promised_without_paddle()
    assert {"plsc", "plsc.entry", "plsc.config.schema", "plsc.models.resnet", "plsc.optim.schedule"} <= set(modules)
    assert without_paddle(modules, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_the_refusal_works_and_a_side_effect_is_seen(tmp_path):
    assert "No module named 'paddle'" in without_paddle(["plsc.backend.ops"], tmp_path)
    (tmp_path / "planted.py").write_text("import os\nos.environ['PLANTED'] = '1'\n")
    assert "planted: importing it changes the process" in without_paddle(["planted"], tmp_path)
