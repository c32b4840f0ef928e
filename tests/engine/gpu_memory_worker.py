"""Steps of the GPU program on this CPU, and the bytes that Paddle counts meanwhile: see test_gpu_memory_measured.py."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys

import numpy as np
import paddle
from paddle.base import core

from plsc.backend import program_view
from plsc.backend.cpu import run_in_order
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from plsc.engine.program.session import Session
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group
from tests.dist.training_cases import Linear
from tests.kernels.library import casts_left_out, gpu_kernels, library


def measured(settings: dict) -> dict:
    """Bytes of a step beside the variables: ``plan``, and ``counted`` by Paddle at the peak of three steps."""
    config, env, here = Config.from_dict(settings), Environment(device="gpu"), Environment()
    half = config.mixed_precision.enabled
    with casts_left_out() if half else contextlib.nullcontext():
        program = build_train(config, UserObjects(model=Linear(128)), env, 7, BuildOptions())
    ops, sample = program_view.operations(program.main), program.shard.num_sample
    plan = sum(program_view.peak_memory(ops, sample).values())
    kept = sum(tensor.size() for tensor in program_view.persistables(ops).values())
    session = Session(program, here, seed=7)
    session.start(Group(here))
    rng = np.random.default_rng(0)
    batch = config.train_batch_size
    assert abs(core.host_memory_stat_current_value("Allocated", 0) - kept) < 1e6  # nothing else is counted
    for step in range(3):
        image = rng.standard_normal((batch, 3, 4, 4)).astype("float32")
        session.step(step, {"image": image, "label": rng.integers(0, config.classifier.num_classes, batch)}, 0.01)
    return {"plan": plan, "counted": core.host_memory_stat_peak_value("Allocated", 0) - kept}


if __name__ == "__main__":
    paddle.enable_static()
    run_in_order()
    with gpu_kernels(library(), Environment(device="gpu"), None):
        orders = json.loads(sys.argv[1])
        with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:  # the peak is that of a process
            print(json.dumps(dict(zip(orders, pool.map(measured, orders.values(), chunksize=1)))))
