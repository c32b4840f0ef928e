"""Training in half precision on CPU ranks, see test_half_precision.py: what one rank runs."""

from __future__ import annotations

import numpy as np
import paddle

from plsc.backend.cpu import run_in_order
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.engine.program.session import Session
from plsc.models import BaseModel
from plsc.parallel.group import connected_group
from tests.dist import training_cases

SHAPE, CLASSES, GLOBAL_BATCH = [3, 8, 8], 23, 12


class SmallNet(BaseModel):
    """Without batch statistics, so that the number of ranks changes rounding only."""

    def build_network(self, input, label, is_train=True):
        # slopes that begin at 1: a number whose rounding changes its sign then changes the gradient little
        x = paddle.nn.PReLU(6, init=1.0)(paddle.nn.Conv2D(3, 6, 3, stride=2, padding=1)(input))
        x = paddle.nn.Conv2D(6, 8, 3, stride=2, padding=1)(x)
        return paddle.nn.Linear(32, 10)(paddle.flatten(x, 1))


def run_cases(env, cases):
    """Those of the linear net (training_cases) have images, those of SmallNet make them."""
    run_in_order()
    return [training_cases.run_case(env, case) if "images" in case else run_case(env, case) for case in cases]


def run_case(env, case):
    """Losses of the case's steps, which of these were skipped, and all states after each step in ``case["kept"]``."""
    usual = {
        "device": "cpu", "train_batch_size": GLOBAL_BATCH // env.world_size // case.get("parts", 1),
        "accumulate": case.get("parts", 1), "model": {"image_shape": SHAPE, "data_format": "NCHW"},
    }  # fmt: skip
    config = Config.from_dict({**usual, **case["config"]})
    program = build_train(config, UserObjects(model=SmallNet()), env, seed=7)
    session = Session(program, env, seed=7)
    session.start(connected_group(env))
    mine = slice(env.rank * GLOBAL_BATCH // env.world_size, (env.rank + 1) * GLOBAL_BATCH // env.world_size)
    results, kept = [], {}
    for step, (image, label) in enumerate(zip(*batches(case["steps"]))):
        results.append(session.step(step, {"image": image[mine], "label": label[mine]}, 0.05))
        if step in case.get("kept", ()):
            kept[step] = {**session.replicated(), **{name: training_cases.tensor(session, name)
                                                     for name in program.tables}}  # fmt: skip
    session.close()
    return {"losses": [one["loss"] for one in results], "kept": kept,
            "skipped": [step for step, one in enumerate(results) if one.get("skipped")]}  # fmt: skip


def batches(steps):
    """(images, labels) of each step: a pattern for each class, with noise."""
    rng = np.random.default_rng(3)
    patterns = rng.standard_normal((CLASSES, *SHAPE))
    labels = rng.integers(0, CLASSES, (steps, GLOBAL_BATCH))
    images = patterns[labels] + 0.3 * rng.standard_normal((steps, GLOBAL_BATCH, *SHAPE))
    return images.astype("float32"), labels
