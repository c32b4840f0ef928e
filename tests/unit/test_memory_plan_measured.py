"""The plan of memory is held against processes that train: bytes that Paddle counts, and the peak that Linux saw.

Each case trains three steps and saves, in a process of its own, and asks for its plan before. What a step makes and
drops is counted, so it has to be met; what the process adds to that is a model with constants
(plsc.engine.memory_need), and has to be met to a tenth, on sizes of 600 MB and more above the process as it was before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL_NET = {"model.name": "ResNet10", "model.base_width": 4, "model.image_shape": [3, 32, 32]}
CASES = {
    "all classes": {**SMALL_NET, "classifier.num_classes": 150_000, "train_batch_size": 64},
    "sampled": {**SMALL_NET, "classifier.num_classes": 200_000, "classifier.sample_ratio": 0.1, "train_batch_size": 64},
    "a net": {"model.name": "ResNet10", "model.base_width": 16, "classifier.num_classes": 1000,
              "train_batch_size": 40, "use_onednn": False},
    "a net by oneDNN": {"model.name": "ResNet10", "model.base_width": 16, "classifier.num_classes": 1000,
                        "train_batch_size": 16},
}  # fmt: skip

TRAIN = """
import json, sys
from plsc import Entry
from plsc.engine.memory_need import STEP
entry = Entry()
for key, value in json.loads(sys.argv[1]).items():
    entry.set(key, value)
plan = entry.plan(1)
before = [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmRSS")][0]
from paddle.base import core
entry.train()
peak = [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
counted = core.host_memory_stat_peak_value("Allocated", 0)
kept = sum(plan.bytes[name] for name in ("class weights", "class momentum", "backbone", "backbone's momentum"))
print(json.dumps({"plan": plan.total, "process": before, "peak": peak, "counted": counted, "kept": kept,
                  "step": plan.bytes[STEP], "bytes": plan.bytes}))
"""


def measure(options, directory):
    settings = {
        "device": "cpu", "with_test": False, "data.dataset": "synthetic", "data.train_image_num": 512,
        "data.num_workers": 0, "train_steps": 3, "seed": 1, "num_threads": 2, "save_async": False,
        "model_save_dir": str(directory), **options,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "2"}
    command = [sys.executable, "-c", TRAIN, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_step_makes_and_drops_is_what_paddle_counts(tmp_path):
    found = measure(CASES["a net"], tmp_path)
    # the executor gives back in a thread of its own, so that a little more than the program needs may exist
    assert 0.98 < (found["counted"] - found["kept"]) / found["step"] < 1.15
    # Paddle's own convolutions leave holes of all sizes in the heap: the same run was seen to take 530 and 610 MB on
    # 3.3.1, 720 and 880 MB on 2.6.2
    assert -0.3 < found["plan"] / found["peak"] - 1 < 0.2


@pytest.mark.parametrize("name", [name for name in CASES if name != "a net"])
def test_the_plan_tells_the_peak(name, tmp_path):
    # one of two runs: the same run's peak differs by up to 7 % from one time to the next
    errors = []
    for _ in range(2):
        found = measure(CASES[name], tmp_path)
        above = found["peak"] - found["process"]
        assert above > 500e6
        errors.append((found["plan"] - found["process"]) / above - 1)
        if abs(errors[-1]) < 0.1:
            return
    pytest.fail(f"the plan is off by {errors}: {found}")
