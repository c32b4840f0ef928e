"""Steps of a small ResNet with buckets of several sizes on each rank (see test_gradient_buckets.py)."""

from __future__ import annotations

import numpy as np

from plsc.backend.cpu import run_in_order
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from plsc.engine.program.session import Session
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group

BATCH, CLASSES, SIDE = 4, 40, 32


def run(env, payload):
    """{bucket_bytes: all replicated state after the steps}; where there are no options also the state after one step
    of all, and of this rank alone."""
    run_in_order()
    together = {size: train(env, size, payload["steps"], payload["options"]) for size in payload["bucket_bytes"]}
    if payload["options"]:
        return {"together": together}
    return {"together": together, "alone": train(env, 1, 1, {}, alone=True), "one step": train(env, 1, 1, {})}


def train(env, bucket_bytes, steps, options, alone=False):
    config = Config.from_dict({
        "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, SIDE, SIDE], "embedding_size": 8,
                  "dropout": 0.0},
        "classifier": {"num_classes": CLASSES}, "train_batch_size": BATCH, **options,
    })  # fmt: skip
    place = Environment() if alone else env
    program = build_train(config, UserObjects(), place, seed=5, options=BuildOptions(bucket_bytes=bucket_bytes))
    session = Session(program, place, seed=5)
    session.start(connected_group(place))
    rng = np.random.default_rng(100 + env.rank)  # other pictures on each rank
    for step in range(steps):
        images = rng.standard_normal((BATCH, 3, SIDE, SIDE)).astype("float32")
        session.step(step, {"image": images, "label": rng.integers(0, CLASSES, BATCH)}, 0.01)
    return session.replicated()
