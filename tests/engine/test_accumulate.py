"""accumulate: a step of micro-batches is the step on one batch of their images, in the memory of one of them.

The step on one batch is held against NumPy elsewhere; with a linear net so is that of micro-batches, on ranks
(tests/dist/test_training_step.py, test_optimizers.py) and in the program of GPUs (test_gpu_training.py).
"""

from __future__ import annotations

import contextlib
from unittest import mock

import numpy as np
import paddle
import pytest

from plsc.backend import program_view
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program import build
from plsc.engine.program.averages import begin_averages
from plsc.engine.program.session import Session
from plsc.models import BaseModel
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group

BATCH, CLASSES, SIDE, EMBEDDING = 12, 61, 8, 6
ALONE = Environment(0, 1, "cpu")
SAMPLED = {"sample_ratio": 0.3}


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


class Unit(BaseModel):
    """Convolutions with a shortcut, in two stages; no batch norm."""

    def build_network(self, input, label, is_train=True):
        with self.stage("stem", is_train):
            x = self.boundary(paddle.nn.PReLU()(paddle.nn.Conv2D(3, 8, 3, padding=1)(input)))
        with self.stage("body", is_train):
            y = paddle.nn.PReLU()(paddle.nn.Conv2D(8, 8, 3, padding=1)(x))
            x = self.boundary(x + paddle.nn.Conv2D(8, 8, 3, padding=1)(y))
        return paddle.nn.Linear(8 * SIDE * SIDE, EMBEDDING)(paddle.flatten(x, 1))


class Normalised(BaseModel):
    """The feature is the batch norm of the pixels."""

    def build_network(self, input, label, is_train=True):
        layer = paddle.nn.BatchNorm1D(input.shape[1])
        layer.train() if is_train else layer.eval()
        return layer(paddle.flatten(input, 1))


class Branch(BaseModel):
    def build_network(self, input, label, is_train=True):
        x = paddle.nn.Linear(3 * SIDE * SIDE, EMBEDDING)(paddle.flatten(input, 1))
        return paddle.static.nn.cond(paddle.mean(x) > 0, lambda: x * 2.0, lambda: x * 3.0)


def program(count: int, model=None, shape=(3, SIDE, SIDE), **settings):
    settings = {"train_batch_size": BATCH // count, "accumulate": count, "use_onednn": False, **settings}
    settings["classifier"] = {"num_classes": CLASSES, "scale": 8.0, **settings.get("classifier", {})}
    settings["model"] = {"embedding_size": EMBEDDING, "image_shape": list(shape), **settings.get("model", {})}
    return build.build_train(Config.from_dict(settings), UserObjects(model=model), ALONE, seed=3)


def inputs(steps: int, shape=(3, SIDE, SIDE)):
    draw = np.random.default_rng(5)
    for _ in range(steps):
        yield {"image": draw.standard_normal((BATCH, *shape)).astype("float32"), "label": draw.integers(0, CLASSES, BATCH)}


@contextlib.contextmanager
def session(made):
    with contextlib.closing(Session(made, ALONE, seed=3)) as running:
        running.start(connected_group(ALONE))
        begin_averages(running)
        yield running


def train(made, steps: int = 3, shape=(3, SIDE, SIDE)):
    """(losses, all variables after the steps)."""
    with session(made) as running:
        losses = [running.step(step, fed, 0.1)["loss"] for step, fed in enumerate(inputs(steps, shape))]
        running.bring_rows_up_to_date()
        rows = {f"rows {name}": np.concatenate([part for other, _, part in running.blocks() if other == name])
                for name in made.rows.tensors}  # fmt: skip
        return losses, {**running.replicated(), **rows}


def kept(made) -> int:
    """Bytes of a step at its peak."""
    return sum(program_view.peak_memory(program_view.operations(made.main)).values())


CASES = {
    "all classes": (3, {}),
    "an image each": (12, {"classifier": SAMPLED}),
    "units too": (2, {"model": {"recompute": True}, "grad_clip_norm": 0.5}),
    "adaface": (3, {"classifier": {"loss_type": "adaface", **SAMPLED}, "ema": {"decay": 0.9}}),
    "curricularface": (4, {"classifier": {"loss_type": "curricularface"}, "calc_acc": True}),
    "adamw, a frozen stage": (
        3, {"optimizer": {"name": "adamw", "options": {"epsilon": 1e-3}}, "classifier": SAMPLED, "lr": 0.01,
            "model": {"freeze": ["stem"]}, "lr_factors": {"body": 0.5}}),
    "only the centres": (3, {"model": {"freeze": ["all"]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_one_batch(name):
    count, settings = CASES[name]
    whole, parts = program(1, Unit(), **settings), program(count, Unit(), **settings)
    losses, expected = train(whole)
    found, variables = train(parts)
    np.testing.assert_allclose(found, losses, rtol=2e-5)
    assert variables.keys() == expected.keys() and len(set(losses)) == 3
    for key, value in expected.items():
        # float32 sums over the images of a batch in another order: 1e-6 of their size, but the gradient of a slope of
        # PReLU is a sum of thousands of numbers of both signs, a hundred times smaller than these
        limit = 2e-4 * max(float(np.abs(value).max()), 1e-3)
        np.testing.assert_allclose(variables[key], value, rtol=0, atol=limit, err_msg=key)


def test_the_memory_is_that_of_a_micro_batch():
    small = kept(program(1, Unit(), train_batch_size=1))
    parts, whole = kept(program(12, Unit())), kept(program(1, Unit()))
    images = 4 * BATCH * 3 * SIDE * SIDE
    parameters = 4 * sum(int(np.prod(one.shape)) for one in program(1, Unit()).parameters)
    # besides: the images of the step, and a second set of gradients, as one is added to the other
    assert parts < small + images + 2 * parameters
    assert parts < 0.4 * whole


@pytest.mark.parametrize("model", [
    {"name": "ResNet10", "base_width": 4, "dropout": 0.3, "image_shape": [3, 16, 16]},
    {"name": "ViT-T", "base_width": 4, "options": {"depth": 2, "patch_size": 4, "drop_path": 0.5, "mask_ratio": 0.25}},
], ids=lambda model: model["name"])  # fmt: skip
def test_computing_again_changes_not_a_bit(model):
    """Dropout draws once, running statistics are updated once a micro-batch."""
    shape = tuple(model.get("image_shape", (3, SIDE, SIDE)))
    with mock.patch.object(build, "recompute_backbone", lambda *given: None):
        once = program(3, model=None, shape=shape, **{"model": model})
    again = [program(3, shape=shape, model=None, **{"model": {**model, "recompute": units}}) for units in (False, True)]
    losses, expected = train(once, shape=shape)
    for made in again:
        found, variables = train(made, shape=shape)
        assert found == losses
        for key, value in expected.items():
            np.testing.assert_array_equal(variables[key], value, err_msg=key)
    assert kept(again[1]) < kept(again[0]) < 0.8 * kept(once)


def test_each_micro_batch_draws_its_own_numbers():
    model = {"name": "ResNet10", "base_width": 4, "dropout": 0.5, "image_shape": [3, 16, 16]}
    features = []
    with mock.patch.object(build, "together", lambda made: features.append(together(made)) or features[-1]):
        made = program(2, shape=(3, 16, 16), model=None, **{"model": model})
    half = np.random.default_rng(1).standard_normal((BATCH // 2, 3, 16, 16)).astype("float32")
    feed = {"image": np.concatenate([half, half]), "label": np.zeros(BATCH, np.int64),
            "learning_rate": np.zeros(1, np.float32), "stop": np.zeros(1, np.float32)}  # fmt: skip
    with session(made) as running:
        (found,) = running.run(made.main, feed, features)
    assert np.abs(found[: BATCH // 2] - found[BATCH // 2 :]).max() > 0.01 * np.abs(found).max()


together = build.together


def normalised(images, count: int, steps: int):
    """Steps of ``Normalised`` in float64: (losses, scale, shift, running mean, running variance)."""
    raise NotImplementedError
