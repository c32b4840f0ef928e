"""The tests of this folder hold plsc against torch itself.

Torch and Paddle are not imported into one process: torch is in an environment of its own, where worker.py runs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("TEST_TORCH_PYTHON") or str(ROOT / ".venvs" / "test-torch" / "bin" / "python")

collect_ignore_glob = [] if os.access(PYTHON, os.X_OK) else ["test_*.py"]


@pytest.fixture(scope="session")
def torch_side() -> Callable[[str, Path], None]:
    """Run ``python -m tests.torch.worker WHAT DIR`` where torch is."""

    def run(what: str, where: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [PYTHON, "-m", "tests.torch.worker", what, str(where)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    return run
