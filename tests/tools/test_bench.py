"""tools/bench.py runs, one process per case, and says what it measured. Smaller cases than in docs/performance.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments):
    small = ["--rounds", "1", "--threads", "1", "--batch", "4"]
    command = [sys.executable, str(ROOT / "tools/bench.py"), *arguments, *small]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_head():
    machine, *cases = bench("head", "--classes", "300", "--ratios", "1", "0.1", "--steps", "1")
    assert machine["cores"] >= 1 and machine["paddle"]
    assert [(case["classes"], case["ratio"]) for case in cases] == [(300, 1.0), (300, 0.1)]
    assert all(case["seconds"] > 0 and case["peak_gb"] > 0.01 for case in cases)
    # of each row 5 reads and writes of 512 float32 and 2 of 4 cosines; of each sampled one 6
    assert cases[0]["gb_moved"] == round(300 * (5 * 2048 + 8 * 4) / 1e9, 3)


def test_head_with_either_kind_of_operations():
    _, *cases = bench("head", "--classes", "300", "--ratios", "0.5", "--steps", "1", "--compiled", "yes", "no")
    assert [case["compiled"] for case in cases] == [True, False]


def test_head_in_parts():
    _, case = bench("head", "--classes", "5000", "--sampled", "2500", "--steps", "1", "--parts")
    assert case["ratio"] == 0.5
    parts = [case[part] for part in ("sample", "gather", "forward", "backward", "update")]
    assert all(seconds >= 0 for seconds in parts) and sum(parts) > 0


def test_save():
    _, beside, waiting = bench("save", "--classes", "300", "--ratios", "1", "--steps", "2")
    assert (beside["save_async"], waiting["save_async"]) == (True, False)
    # weight and momentum of 300 classes of 512 numbers are 1.2 MB
    assert beside["checkpoint_mb"] == waiting["checkpoint_mb"] > 1.2


def test_ranks():
    _, alone, two = bench("ranks", "--classes", "300", "--ranks", "1", "2", "--scaling", "strong", "--steps", "1")
    assert (alone["ranks"], alone["batch"], alone["collectives"], alone["sent"]) == (1, 4, 0, {})
    assert (two["ranks"], two["batch"]) == (2, 2)
    # of a rank: labels of 8 bytes and features of 512 float32 for each of its 2 images
    assert two["sent"]["all_gather"] == 2 * 8 + 2 * 4 * 512


def test_simulated_ranks():
    """The bench checks that every rank receives every value."""
    _, few, many = bench("ranks", "--simulate", "2", "200")
    assert (few["simulated"], many["simulated"]) == (2, 200)
    assert all(case[f"{phase}_seconds"] > 0 for case in (few, many) for phase in ("start", "agree", "save"))
    # 198 ranks more with 9 exchanges each take 0.4 s of an idle core; one request of each rank for the value of each
    # other one would be 360,000 requests
    assert many["cpu_seconds"] - few["cpu_seconds"] < 5


def test_a_bench_that_fails_says_why():
    command = [sys.executable, str(ROOT / "tools/bench.py"), "head", "--classes", "0", "--ratios", "1", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and "'classes': 0" in done.stderr and "num_classes" in done.stderr
