"""Steps of a ResNet50 with a classifier, by the program that trains, timed."""

from __future__ import annotations

import math
import time

import numpy as np

from plsc.backend.copies import Behind, InTime, copies_of_gpu
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.doctor.findings import verdict
from plsc.engine.doctor.rank import Place
from plsc.engine.program.build import build_train
from plsc.engine.program.results import Reading
from plsc.engine.program.session import Session

MODEL = {"name": "ResNet50", "image_shape": [3, 112, 112]}
BATCH = {"GPU": 128, "CPU": 2}
# images a second of a rank: a GPU of 2017 does some 1,500 of 112 x 112 with mixed precision, a core of 2020 some 5
SLOWEST = {"GPU": 200.0, "CPU": 0.5}
STEPS = 2


def step(place: Place, slowest: float | None = None) -> tuple[str, str, str]:
    """Images a second after one step that prepares; the loss is finite and the same on every rank."""
    batch, slowest = BATCH[place.name], SLOWEST[place.name] if slowest is None else slowest
    half = place.build.on_gpu and place.env.on_gpu
    config = Config.from_dict(
        {
            "model": MODEL, "classifier": {"num_classes": 10_000, "sample_ratio": 0.1},
            "train_batch_size": batch, "mixed_precision": {"enabled": half}, "with_test": False,
        }
    )  # fmt: skip
    rng = np.random.default_rng(place.env.rank)
    inputs = {
        "image": rng.standard_normal((batch, *config.model.image_shape)).astype("float32"),
        "label": rng.integers(0, 10_000, batch),
    }
    copies = copies_of_gpu(place.env.device_id) if place.env.on_gpu else InTime()
    session = Session(build_train(config, UserObjects(), place.build, seed=1), place.env, 1, Reading(copies))
    try:
        session.start(place.group)
        losses, seconds = [], []
        for number in range(1 + STEPS):
            began = time.perf_counter()
            losses.append(float(session.step(number, inputs, 0.01)["loss"]))
            seconds.append(time.perf_counter() - began)
    finally:
        session.close()
    every = place.group.all_gather(losses)
    if not all(map(math.isfinite, losses)) or any(one != losses for one in every):
        seen = f"losses {', '.join(f'{loss:.4f}' for loss in losses)} on this rank"
        return verdict(False, f"{seen}; of all ranks {every}", "the ring or a kernel is wrong: see their checks above")
    speed = batch / min(seconds[1:])
    seen = f"{config.model.name}, batch {batch}{', mixed precision' if half else ''}: {speed:,.1f} images/s of a rank"
    if place.env.on_gpu and not isinstance(copies, Behind):
        seen += "; its copies wait (late_results)"
    advice = "another process uses the device, or it is throttled (nvidia-smi -q -d PERFORMANCE)"
    return verdict(speed >= slowest, seen, advice)
