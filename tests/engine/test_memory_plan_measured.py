"""The plan of memory is held against processes that train: bytes that Paddle counts, and the peak that Linux saw.

Each case is planned in one process, and trains three steps and saves in another. What a step makes and drops is
counted, so it has to be met; what the process adds is a model with constants (plsc.engine.memory.estimate). Both
have to meet the peak to a tenth, above the process as it was when only Paddle was imported: 480 MB and more.
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
    "sampled, not compiled": {**SMALL_NET, "classifier.num_classes": 200_000, "classifier.sample_ratio": 0.1,
                              "train_batch_size": 64, "classifier.compiled": False},
    "a net": {"model.name": "ResNet10", "model.base_width": 16, "classifier.num_classes": 1000,
              "train_batch_size": 40, "use_onednn": False},
    "a net by oneDNN": {"model.name": "ResNet10", "model.base_width": 16, "classifier.num_classes": 1000,
                        "train_batch_size": 16},
}  # fmt: skip

BEGIN = """
import json, sys
from plsc import Entry
from plsc.engine import actions as run
from plsc.engine.memory.estimate import STEP, MemoryEstimator
from paddle.base import core
entry = Entry()
for key, value in json.loads(sys.argv[1]).items():
    entry.set(key, value)
def status(name):
    return [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name)][0]
process = status("VmRSS")
"""

PLAN = """
import paddle
paddle.enable_static()
need = MemoryEstimator(entry._config, entry._user_objects, 1, process)  # without the plan's search for the most classes
sizes = need.of(entry.config["classifier"]["num_classes"]).sizes
kept = sum(sizes[name] for name in ("class weights", "class momentum", "backbone", "backbone's momentum"))
print(json.dumps({"plan": sum(sizes.values()) - process, "kept": kept, "step": sizes[STEP], "sizes": sizes}))
"""

TRAIN = """
entry.train()
counted = core.host_memory_stat_peak_value("Allocated", 0)
print(json.dumps({"peak": status("VmHWM") - process, "counted": counted}))
"""


def measure(options, directory):
    settings = {
        "device": "cpu", "with_test": False, "data.dataset": "synthetic", "data.train_image_num": 512,
        "data.num_workers": 0, "train_steps": 3, "seed": 1, "num_threads": 2, "save_async": False,
        "model_save_dir": str(directory), **options,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "2"}
    directory.mkdir()
    found = {}
    for part in (PLAN, TRAIN):
        command = [sys.executable, "-c", BEGIN + part, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory)
        assert done.returncode == 0, done.stderr[-2000:]
        found.update(json.loads(done.stdout.splitlines()[-1]))
    return found


@pytest.mark.parametrize("name", list(CASES))
def test_the_plan_tells_the_peak(name, tmp_path):
    found = measure(CASES[name], tmp_path / "0")
    for attempt in "12":
        if abs(found["plan"] / found["peak"] - 1) < 0.1:
            break
        # The executor frees in a thread of its own. Where that is late, the peak is higher: with two such runs at once,
        # 562 to 625 MB with Paddle 2.6. It is never lower than what the program needs.
        found = min(found, measure(CASES[name], tmp_path / attempt), key=lambda one: one["peak"])
    assert found["peak"] > 450e6
    assert abs(found["plan"] / found["peak"] - 1) < 0.1, found
    if name == "a net":
        # the executor gives back in a thread of its own, so that a little more than the program needs may exist
        assert 0.98 < (found["counted"] - found["kept"]) / found["step"] < 1.15
