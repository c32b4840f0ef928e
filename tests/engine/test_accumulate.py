"""accumulate: a step of micro-batches is the step on one batch of their images, in the memory of one of them.

The step on one batch is held against NumPy elsewhere; with a linear net so is that of micro-batches, on ranks
(tests/dist/test_training_step.py, test_optimizers.py) and in the program of GPUs (test_gpu_training.py).
"""

from __future__ import annotations

import contextlib
import math
from unittest import mock

import numpy as np
import paddle
import pytest

from plsc.backend import program_view
from plsc.backend.cpu import run_in_order
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program import build
from plsc.engine.program.averages import begin_averages
from plsc.engine.program.session import Session
from plsc.errors import ConfigError
from plsc.models import BaseModel
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group
from tests.reference.margin_softmax import margin_softmax, momentum_step

BATCH, CLASSES, SIDE, EMBEDDING = 12, 61, 8, 6
ALONE = Environment(0, 1, "cpu")
SAMPLED = {"sample_ratio": 0.3}
NORMS, FILLS = {"batch_norm", "batch_norm_"}, {"fill_constant", "full"}
FLAT = (3, 1, 2)  # as many pixels as the feature has numbers


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    run_in_order()  # as a run does: the micro-batches draw their random numbers one after the other
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
        layer = paddle.nn.BatchNorm1D(EMBEDDING)
        layer.train() if is_train else layer.eval()
        return layer(paddle.flatten(input, 1))


class Branch(BaseModel):
    def build_network(self, input, label, is_train=True):
        x = paddle.nn.Linear(3 * SIDE * SIDE, EMBEDDING)(paddle.flatten(input, 1))
        return paddle.static.nn.cond(paddle.mean(x) > 0, lambda: x * 2.0, lambda: x * 3.0)


def program(count: int, net=None, shape=(3, SIDE, SIDE), **settings):
    settings = {"train_batch_size": BATCH // count, "accumulate": count, "use_onednn": False, **settings}
    settings["classifier"] = {"num_classes": CLASSES, "scale": 8.0, **settings.get("classifier", {})}
    settings["model"] = {"embedding_size": EMBEDDING, "image_shape": list(shape), **settings.get("model", {})}
    return build.build_train(Config.from_dict(settings), UserObjects(model=net), ALONE, seed=3)


def inputs(steps: int, shape=(3, SIDE, SIDE)):
    draw = np.random.default_rng(5)
    for _ in range(steps):
        images = draw.standard_normal((BATCH, *shape)).astype("float32")
        yield {"image": images, "label": draw.integers(0, CLASSES, BATCH)}


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


def number_of(kinds: set[str], made) -> int:
    return sum(op.kind in kinds for op in program_view.operations(made.main))


def kept(made) -> int:
    """Bytes of a step at its peak."""
    return sum(program_view.peak_memory(program_view.operations(made.main)).values())


CASES = {
    "all classes": (3, {}),
    "an image each": (12, {"classifier": SAMPLED}),
    "units too": (2, {"model": {"recompute": True}, "grad_clip_norm": 0.5}),
    "adaface": (3, {"classifier": {"loss_type": "adaface", **SAMPLED}, "ema": {"decay": 0.9}}),
    "curricularface": (4, {"classifier": {"loss_type": "curricularface"}, "calc_acc": True}),
    "uniface": (3, {"classifier": {"loss_type": "uniface", **SAMPLED}, "grad_clip_norm": 0.5}),
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
    whole, parts, small = program(1, Unit()), program(12, Unit()), program(1, Unit(), train_batch_size=1)
    images = 4 * BATCH * 3 * SIDE * SIDE
    parameters = 4 * sum(math.prod(one.shape) for one in whole.parameters)
    # besides: the images of the step, and the sums of gradients; not a second set, as each is added when it is made
    assert kept(parts) < kept(small) + images + 0.9 * parameters
    assert kept(parts) < 0.4 * kept(whole)


@pytest.mark.parametrize("model", [
    {"name": "ResNet10", "base_width": 4, "dropout": 0.3, "image_shape": [3, 16, 16]},
    {"name": "ViT-T", "base_width": 4, "options": {"depth": 2, "patch_size": 4, "drop_path": 0.5, "mask_ratio": 0.25}},
], ids=lambda model: model["name"])  # fmt: skip
def test_computing_again_changes_not_a_bit(model):
    """Dropout draws once, running statistics are updated once a micro-batch."""
    shape = tuple(model.get("image_shape", (3, SIDE, SIDE)))
    with mock.patch.object(build, "recompute_backbone", lambda *given: None):
        once = program(3, shape=shape, model=model)
    again = [program(3, shape=shape, model={**model, "recompute": units}) for units in (False, True)]
    losses, expected = train(once, shape=shape)
    for made in again:
        found, variables = train(made, shape=shape)
        assert found == losses
        for key, value in expected.items():
            np.testing.assert_array_equal(variables[key], value, err_msg=key)
    assert kept(again[1]) < kept(again[0]) < 0.8 * kept(once)
    if model["name"] == "ResNet10":  # its layers have few numbers of channels; two fills for each would be 2 * norms
        norms, fills = (number_of(kinds, again[0]) - number_of(kinds, once) for kinds in (NORMS, FILLS))
        assert 0 < fills <= norms


def test_each_micro_batch_draws_its_own_numbers():
    model = {"name": "ResNet10", "base_width": 4, "dropout": 0.5, "image_shape": [3, 16, 16]}
    features, together = [], build.together
    with mock.patch.object(build, "together", lambda made: features.append(together(made)) or features[-1]):
        made = program(2, shape=(3, 16, 16), model=model)
    half = np.random.default_rng(1).standard_normal((BATCH // 2, 3, 16, 16)).astype("float32")
    feed = {"image": np.concatenate([half, half]), "label": np.zeros(BATCH, np.int64),
            "learning_rate": np.zeros(1, np.float32), "stop": np.zeros(1, np.float32)}  # fmt: skip
    with session(made) as running:
        (found,) = running.run(made.main, feed, features)
    assert np.abs(found[: BATCH // 2] - found[BATCH // 2 :]).max() > 0.01 * np.abs(found).max()


def normalised(count: int, steps: int, rows):
    """Steps of ``Normalised`` in float64, from the centres ``rows``: losses, [scale, shift], running mean, variance."""
    values = [np.ones(EMBEDDING), np.zeros(EMBEDDING), rows.astype(np.float64)]
    velocities = [np.zeros_like(value) for value in values]
    mean, variance, losses = np.zeros(EMBEDDING), np.ones(EMBEDDING), []
    for fed in inputs(steps, FLAT):
        parts = np.split(fed["image"].reshape(BATCH, -1).astype(np.float64), count)
        units = []
        for part in parts:
            units.append((part - part.mean(0)) / np.sqrt(part.var(0) + 1e-5))
            mean, variance = 0.9 * mean + 0.1 * part.mean(0), 0.9 * variance + 0.1 * part.var(0)
        unit = np.concatenate(units)
        feature = values[0] * unit + values[1]
        loss, dfeature, drows, _ = margin_softmax(feature, values[2], fed["label"], (1, 0.5, 0), 8.0)
        losses.append(loss)
        for number, gradient in enumerate([(dfeature * unit).sum(0), dfeature.sum(0), drows]):
            values[number], velocities[number] = momentum_step(
                values[number], velocities[number], gradient, 0.1, 0.9, 5e-4
            )
    return losses, values[:2], mean, variance


def test_batch_norm_is_that_of_each_micro_batch_and_its_statistics_of_all_in_turn():
    made = program(3, Normalised(), FLAT)
    with session(made) as running:
        rows = np.concatenate([rows for _, rows in running.weights()])
    losses, parameters, mean, variance = normalised(3, 4, rows)
    found, variables = train(made, 4, FLAT)
    np.testing.assert_allclose(found, losses, rtol=1e-5)  # float32: 1e-6 a step
    own = {name.rsplit(".", 1)[-1]: value for name, value in variables.items() if name in made.backbone}
    expected = {"w_0": parameters[0], "b_0": parameters[1], "w_1": mean, "w_2": variance}
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(own[name], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)
    assert np.abs(normalised(1, 4, rows)[3] - variance).max() > 0.05  # the batch as one would be told from this


@pytest.mark.parametrize("model, settings, message", [
    (Branch(), {}, "accumulate=3: the network has a loop or branch"),
    (Normalised(), {"accumulate": 33}, r"accumulate=33: .*\[1, 32\]"),
    (Normalised(), {"accumulate": 0}, r"accumulate=0: .*\[1, 32\]"),
])  # fmt: skip
def test_what_cannot_be_is_refused(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        program(3, model, **settings)
