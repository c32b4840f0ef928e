"""The programs of GPUs on CPU ranks, see tests/kernels: what test_gpu_training.py asks for, as one rank runs it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from unittest import mock

import numpy as np
import paddle

from plsc.backend.cpu import run_in_order
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from plsc.engine.program.session import Session
from plsc.parallel.group import connected_group
from tests.dist import classifier_cases, training_cases
from tests.kernels.library import casts_left_out, gpu_kernels


def run_all(env, payload):
    """{name: what the function of this name returns for its cases}."""
    made, orders = payload
    run_in_order()
    with gpu_kernels(made, env, connected_group(env)):
        return {name: globals()[name](env, cases) for name, cases in orders.items()}


def broken(env, cases):
    from tests.dist import gpu_breaks  # which is built on this module

    return gpu_breaks.broken(env, cases)


def training(env, cases):
    """Steps with a linear net; each case as tests.dist.training_cases has them."""
    found = []
    for case in cases:
        half = case["config"].get("mixed_precision", {}).get("enabled", False)
        with casts_left_out() if half else contextlib.nullcontext():
            found.append(training_cases.run_case(env, {**case, "device": "gpu"}))
    return found


def classifier(env, cases):
    """LargeScaleClassifier in a user's program."""
    with mock.patch.object(paddle.device, "get_device", lambda: "gpu:0"):
        return classifier_cases.run_cases(env, cases)


def wrong_labels(env, cases):
    """Either of them."""
    return [(training if "rates" in case else classifier)(env, [case])[0] for case in cases]


def minimized(env, cases):
    with mock.patch.object(paddle.device, "get_device", lambda: "gpu:0"):
        return [classifier_cases.minimize(env, case) for case in cases]


def both_devices(env, cases):
    """Steps of a ResNet by the program of GPUs and by that of CPUs: (losses and accuracies, states, rows) of each."""
    found = []
    for case in cases:
        options = BuildOptions(case["block_rows"], 20_000)
        config = Config.from_dict(case["config"])
        places = [replace(env, device=device) for device in ("gpu", "cpu")]
        programs = [build_train(config, UserObjects(), place, 7, options) for place in places]
        found.append([_steps(env, program, case) for program in programs])
    return found


def _steps(env, program, case):
    session = Session(program, env, seed=7)
    session.start(connected_group(env))
    batch, results = case["images"].shape[1] // env.world_size, []
    mine = slice(env.rank * batch, (env.rank + 1) * batch)
    for step, (image, label) in enumerate(zip(case["images"], case["labels"])):
        results.append(dict(session.step(step, {"image": image[mine], "label": label[mine]}, 0.01)))
    session.bring_rows_up_to_date()
    rows = {name: np.concatenate([rows for other, _, rows in session.blocks() if other == name])
            for name in session.program.rows.tensors}  # fmt: skip
    return results, session.replicated(), rows
