"""The parts of tools/test.sh leave no file and no test out; what is said to need no Paddle is run without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests import parts
from tests.without_paddle import make


def test_every_file_is_in_one_part():
    named = [path for part in parts.PARTS for path in parts.files(part)]
    there = {path.relative_to(parts.ROOT).as_posix() for path in (parts.ROOT / "tests").rglob("test_*.py")}
    assert len(named) == len(set(named))
    assert set(named) == there


def test_every_name_is_that_of_a_file():
    places = [parts.PLAIN, parts.ONCE, parts.ALONE]
    assert len(frozenset.union(*places)) == sum(map(len, places))
    named = {*frozenset.union(*places), *parts.LONGEST, *parts.FAST, *parts.NOT_FAST}
    assert [path for path in named if not (parts.ROOT / path).is_file()] == []
    assert set(parts.FAST) == set(parts.files("fast")) and parts.NOT_FAST < parts.PLAIN


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    return make(tmp_path_factory.mktemp("interpreter"))


@pytest.mark.parametrize("body", [
    "import paddle", "import pytest\n    pytest.importorskip('paddle')", "from plsc.backend import ops",
    "import subprocess, sys\n    subprocess.run([sys.executable, '-c', 'import paddle'], check=True)",
])  # fmt: skip
def test_what_imports_paddle_fails_and_is_not_skipped(python, tmp_path, body):
    (tmp_path / "test_planted.py").write_text(f"def test_planted():\n    {body}\n")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=parts.ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout


def test_nothing_is_skipped_but_what_runs_once():
    """What only Paddle 3 can run: with 2.6 its file is skipped where somebody asks for it by name, and never in CI."""
    written = {path.relative_to(parts.ROOT).as_posix(): path.read_text() for path in parts.ROOT.glob("tests/**/*.py")}
    del written["tests/project/test_parts.py"]
    assert [path for path, text in written.items() if "importorskip" in text] == []
    skipping = {path for path, text in written.items() if re.search(r"\.skip(if)?\(", text)}
    assert skipping <= parts.ONCE, f"run it, or put it among ONCE of tests/parts.py: {skipping - parts.ONCE}"


def test_what_is_skipped_has_failed_in_a_complete_run(tmp_path):
    assert "-p tests.no_skips" in (parts.ROOT / "tools" / "test.sh").read_text()
    ways = ("pytest.importorskip('no_such_package')", "@pytest.mark.skip", "@pytest.fixture\ndef this(): pytest.skip()")
    for number, way in enumerate(ways):
        text = f"import pytest\n{way}\ndef test_planted({'this' if 'this' in way else ''}): pass\n"
        (tmp_path / f"test_planted{number}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-p", "tests.no_skips"]
    env = {**os.environ, "CI": "true"}  # pytest cuts the lines of its summary without it
    done = subprocess.run([*command, str(tmp_path)], cwd=parts.ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 1 and "3 errors" in done.stdout, done.stdout
    summary = [line for line in done.stdout.splitlines() if line.startswith("ERROR ")]
    assert len(summary) == 3
    assert all("no test is skipped in a complete run: Skipped" in line for line in summary), summary


def test_the_interpreter_has_all_else(python, tmp_path):
    (tmp_path / "test_planted.py").write_text("def test_planted():\n    import numpy, PIL, plsc, sklearn, yaml\n")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=parts.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
