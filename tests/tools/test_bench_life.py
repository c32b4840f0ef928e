"""bench.py data and bench.py life: small cases, whose figures agree with one another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments):
    command = [sys.executable, str(ROOT / "tools/bench.py"), *arguments, "--rounds", "1", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")][1:]


def test_data():
    alone, worker, start = bench(
        "data", "--workers", "0", "1", "--images", "64", "--batch", "16", "--size", "24", "--list-lines", "120"
    )
    for case in (alone, worker):  # rounded to whole images and to milliseconds
        assert case["images_per_second"] * case["seconds"] == pytest.approx(64, rel=0.2)
    # the parts are what an image takes, but for the batch and the loop around them
    assert 0 < alone["us_read"] + alone["us_decode"] + alone["us_normalise"]
    assert start["seconds"] > 0 and start["peak_gb"] >= start["base_gb"]
    lines = [f"id_{label:07d}/{number}.jpg\t{label}\n" for label in range(3) for number in range(50)]
    assert start["list_mb"] == pytest.approx(len("".join(lines[:120])) / 1e6, abs=0.1)


def test_data_by_container():
    small = ["--images", "32", "--batch", "16", "--size", "24", "--passes", "1"]
    warm, cold = bench("data", "--containers", "tar", *small)
    assert (warm["cache"], cold["cache"]) == ("warm", "cold")
    for case in (warm, cold):
        # seconds are rounded to milliseconds, of which there may be few
        assert 32 / case["images_per_second"] == pytest.approx(case["seconds"], abs=0.0006)
        assert case["reads_per_second"] > 0 and 0 <= case["resident"] <= 1


def test_index():
    (case,) = bench("index", "--images", "30000", "--processes", "2")
    assert case["seconds_to_make"] >= 0 and case["peak_to_make_gb"] > 0.01
    assert case["cached_gb"] == 0.001  # 28 bytes an image and the order: the bench keeps an index of any size


def test_life():
    small = ["--model", "ResNet10", "--width", "4", "--size", "16", "--classes", "40", "--batch", "2"]
    parts = ["--parts", "start", "load", "verify", "export", "predict", "--batches", "2", "--images", "20"]
    start, load, training, test, export, predict, *_ = bench("life", *small, *parts)
    assert start["seconds"] >= sum(start["of_these"].values())
    assert start["checkpoint_gb"] == load["checkpoint_gb"] > 0 and set(load["of_these"]) == {"check", "read"}
    assert (training["by"], test["by"]) == ("training", "test")
    for case in (training, test, predict):
        assert case["images_per_second"] * case["seconds"] == pytest.approx(1, rel=0.2) and case["cpu_ms"] >= 0
    assert export["seconds"] > 0 and (predict["runtime"], predict["batch"]) == ("paddle", 2)
