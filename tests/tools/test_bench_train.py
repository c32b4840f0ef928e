"""tools/bench.py train runs with both kinds of kernels, and its figures fit each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_train():
    command = [
        sys.executable, str(ROOT / "tools/bench.py"), "train", "--nets", "quickstart", "--batch", "2", "--steps", "1",
        "--classes", "50", "--ranks", "1", "--kernels", "onednn", "plain", "--accumulate", "2",
        "--rounds", "1", "--threads", "1",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    _, *cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(case["ranks"], case["kernels"], case["accumulate"]) for case in cases] == [
        (1, "onednn", 2), (1, "plain", 2)
    ]  # fmt: skip
    for case in cases:
        rate = case["batch"] * case["ranks"] / case["seconds"]
        assert abs(case["images_per_second"] - rate) < 0.01 * rate
        assert 0 <= case["wait"] < 1 and 0 <= case["python"] < 1 and case["head"] > 0
