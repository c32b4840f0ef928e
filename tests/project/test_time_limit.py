"""tests.time_limit: a test that hangs fails by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HANGS = """
import ctypes

def test_before():
    pass

def test_that_hangs():
    ctypes.PyDLL(None).pause()  # in C, with Python's lock
"""


def test_what_hangs_fails_and_is_named(tmp_path):
    """Twice, and no more often; what came before has passed."""
    (tmp_path / "test_hangs.py").write_text(HANGS)
    options = ["-p", "tests.time_limit", "-n", "2", "--dist", "loadfile", "--max-worker-restart", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_hangs.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PLSC_TEST_LIMIT": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1 and "2 failed, 1 passed" in done.stdout, done.stdout
    assert "crashed while running 'test_hangs.py::test_that_hangs'" in done.stdout
    assert done.stderr.count("in test_that_hangs") == 2, done.stderr
