"""pytest finds every test file: its own list of directories to pass over holds names such as dist and build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = ("tests/gpu", "tests/torch")  # need an environment of their own


def test_every_test_file_is_collected():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *(f"--ignore={path}" for path in ELSEWHERE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    collected = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert {name for name in written - collected if not name.startswith(ELSEWHERE)} == set()
