"""Stages of a backbone: frozen ones stay as they are and cost no gradient, factors multiply what a step moves.

In steps of one process. Several ranks and resumed runs: tests/dist/test_frozen_runs.py.
"""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import program_view
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.engine.program.session import Session
from plsc.errors import ConfigError
from plsc.models import BaseModel, build_feature, build_model, list_models
from plsc.models.stages import Stages
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group
from plsc.registry import MODELS

BATCH, CLASSES, SHAPE = 8, 11, (3, 8, 8)
ALONE = Environment(0, 1, "cpu")
RESNET = {"name": "ResNet10", "base_width": 4, "image_shape": list(SHAPE), "embedding_size": 6, "dropout": 0.0}
STAGES = ["stem", "stage1", "stage2", "stage3", "stage4", "feature"]


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


class TwoStages(BaseModel):
    """conv - BN as the stages ``first`` and ``second``, then an fc of no stage."""

    def build_network(self, input, label, is_train=True):
        x, nn, named = input, paddle.nn, paddle.ParamAttr
        for name in ("first", "second"):
            with self.stage(name, is_train) as training:
                conv = nn.Conv2D(3, 3, 3, padding=1, weight_attr=named(f"{name}.conv"), bias_attr=False)
                norm = nn.BatchNorm2D(3, weight_attr=named(f"{name}.scale"), bias_attr=named(f"{name}.shift"),
                                      name=f"{name}.running")  # fmt: skip
                norm.train() if training else norm.eval()
                x = norm(conv(x))
        return self.fc(x)

    def fc(self, x):
        attrs = {f"{part}_attr": paddle.ParamAttr(f"fc.{part}") for part in ("weight", "bias")}
        return paddle.nn.Linear(192, 6, **attrs)(paddle.flatten(x, 1))


class Untold(TwoStages):
    """Its layers are in training mode whatever its stage says."""

    def build_network(self, input, label, is_train=True):
        with self.stage("first", is_train):
            norm = paddle.nn.BatchNorm2D(3)
            norm.train() if is_train else norm.eval()
            return paddle.nn.Linear(192, 6)(paddle.flatten(norm(input), 1))


def make_session(options, parts=None):
    config = Config.from_dict({
        "train_batch_size": BATCH, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "model": dict(RESNET),
        "classifier": {"num_classes": CLASSES, "scale": 4.0, "sample_ratio": 1.0},
    })  # fmt: skip
    for key, value in options.items():
        config.set(key, value)
    session = Session(build_train(config, parts or UserObjects(), ALONE, 5), ALONE, 5)
    session.start(connected_group(ALONE))
    return session


def batch(number=0):
    rng = np.random.default_rng(number)
    images = rng.standard_normal((BATCH, *SHAPE)).astype(np.float32)
    return {"image": images, "label": rng.integers(0, CLASSES, BATCH).astype(np.int64)}


def weights(session):
    """{name: array} of the backbone, and the class centres as ``head``."""
    backbone = {name: array for name, array in session.replicated().items() if name in session.program.backbone}
    return {**backbone, "head": np.concatenate([rows for name, _, rows in session.blocks() if name == "weight"])}


def moved(session, rate, steps=1):
    """(weights before, weights after)."""
    before = weights(session)
    for number in range(steps):
        session.step(number, batch(number), rate)
    session.bring_rows_up_to_date()
    return before, weights(session)


def stage_of(name):
    """By the names that the model gives its layers; the head of a ResNet is the stage ``feature``."""
    part = name.split(".")[1] if "." in name else name
    return {"head": "feature"}.get(part, part) if name != "head" else "head"


@pytest.mark.once
def test_every_variable_of_a_registered_model_is_in_a_stage():
    names = [name for name in list_models() if MODELS.find(name).__module__.startswith("plsc.")]
    for name in {MODELS.find(name): name for name in reversed(names)}.values():  # one of each class
        stages, main = Stages(), paddle.static.Program()
        with paddle.static.program_guard(main, paddle.static.Program()):
            image = paddle.static.data("image", [2, 3, 32, 32], "float32")
            model = build_model(name, image_shape=[3, 32, 32], base_width=4, embedding_size=8)
            build_feature(model, {"image": image, "label": None}, True, stages)
        found = sorted(sum(stages.members.values(), []))
        assert found == sorted(value.name for value in main.global_block().all_parameters()), name
        assert len(stages.members) >= 3 and list(stages.members)[-1] == "feature", name


def test_frozen_stages_stay_as_they_are_and_cost_no_gradient():
    frozen = make_session({"model.freeze": ["stem", "stage1"], "momentum": 0.9, "weight_decay": 0.1})
    before, after = moved(frozen, 0.1, steps=3)
    same = {name for name in before if (before[name] == after[name]).all()}
    assert same == frozen.program.frozen == {name for name in before if stage_of(name) in ("stem", "stage1")}
    kinds = [op.kind for op in program_view.operations(frozen.program.main)]
    convolutions = sum("conv" in name for name in before if stage_of(name) not in ("stem", "stage1"))
    gradients = sum("conv2d_grad" in kind for kind in kinds)
    assert gradients == convolutions > 0
    states = [name for name in frozen.program.replicated if "velocity" in name]
    assert states and not any(stage_of(name.split("velocity.")[1]) in ("stem", "stage1") for name in states)


def test_a_net_behind_a_frozen_stage_is_trained_as_one_on_its_features():
    """The frozen convolution and batch norm, computed by NumPy, in front of the same layers without them."""

    class Behind(TwoStages):
        def build_network(self, input, label, is_train=True):
            return self.fc(input)

    whole = make_session({"model.freeze": ["first", "second"]}, UserObjects(model=TwoStages()))
    start = weights(whole)
    behind = make_session({}, UserObjects(model=Behind()))
    fc = {name: value for name, value in start.items() if name.startswith("fc.")}
    assert len(fc) == 2
    behind.load_replicated(fc)
    for number in range(2):
        given = batch(number)
        features = given["image"].astype(np.float64)
        for layer in ("first", "second"):
            features = _conv(features, start[f"{layer}.conv"])  # the statistics are still 0 and 1
            features = features / np.sqrt(1.0 + 1e-5)
        found = whole.step(number, given, 0.1)["loss"]
        expected = behind.step(number, {**given, "image": features.astype(np.float32)}, 0.1)["loss"]
        assert found == pytest.approx(expected, rel=1e-5)  # float32 sums of 27 and 192 products
    ends = weights(whole), weights(behind)
    for name in [*fc, "head"]:
        np.testing.assert_allclose(ends[0][name], ends[1][name], rtol=0, atol=2e-6)
        assert np.abs(ends[0][name] - start[name]).max() > 1e-3


def _conv(x, kernel):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, kernel.astype(np.float64))


def test_the_gradient_through_a_frozen_stage_is_the_slope_of_the_loss():
    session = make_session({"model.freeze": ["second"]}, UserObjects(model=TwoStages()))
    name, before = "first.conv", weights(session)
    session.step(0, batch(), 1.0)
    gradient = before[name] - weights(session)[name]
    direction = gradient / np.linalg.norm(gradient)

    def loss(distance):
        session.load_replicated({**before, name: before[name] + distance * direction})
        session.set_rows("weight", np.arange(CLASSES), before["head"])
        return session.step(0, batch(), 1e-30)["loss"]

    slope = (loss(0.02) - loss(-0.02)) / 0.04
    assert slope == pytest.approx(float(np.linalg.norm(gradient)), rel=5e-3)  # a difference of two float32 losses


def test_all_leaves_only_the_class_centres():
    session = make_session({"model.freeze": "all", "model.dropout": 0.4})
    before, after = moved(session, 0.1, steps=2)
    assert {name for name in before if (before[name] != after[name]).any()} == {"head"}
    assert not any("conv2d_grad" in op.kind for op in program_view.operations(session.program.main))


@pytest.mark.once
def test_the_rate_of_a_stage_is_that_of_the_next_times_the_decay():
    """As BEiT's layer decay counts, arXiv:2106.08254: the last stage has the full rate; lr_factors multiply."""

    def one_step(more):
        return moved(make_session(more), 0.05)

    (before, plain), (_, scaled) = one_step({}), one_step({"lr_layer_decay": 0.5, "lr_factors": {"stage1": 3.0}})
    for name, start in before.items():
        if not name.endswith(("mean", "variance")):
            stage = stage_of(name)
            factor = 1.0 if stage == "head" else 0.5 ** (5 - STAGES.index(stage)) * (3.0 if stage == "stage1" else 1.0)
            error = 1e-6 * np.abs(plain[name]).max()  # both weights are rounded
            np.testing.assert_allclose(scaled[name] - start, factor * (plain[name] - start), rtol=1e-4, atol=error)


@pytest.mark.once
def test_a_decay_needs_stages():
    class Plain(TwoStages):
        def build_network(self, input, label, is_train=True):
            return self.fc(input)

    with pytest.raises(ConfigError, match="lr_layer_decay=0.5: model Plain has no stages to tell apart"):
        make_session({"lr_layer_decay": 0.5}, UserObjects(model=Plain()))


@pytest.mark.parametrize("kind", ["dense", "sampled", "sgd"])
def test_a_step_moves_each_stage_by_its_factor(kind):
    factors = {"first": 0.25, "second": 3.0, "head": 7.0}
    options = {"classifier.sample_ratio": 0.8} if kind == "sampled" else {}

    def one_step(more):
        optimizer = paddle.optimizer.SGD(0.05) if kind == "sgd" else None
        return moved(make_session({**options, **more}, UserObjects(TwoStages(), optimizer=optimizer)), 0.05)

    (before, plain), (_, scaled) = one_step({}), one_step({"lr_factors": factors})
    for name, start in before.items():
        factor = factors.get(name.split(".")[0], 1.0)
        if "running" in name:  # batch statistics have no learning rate
            continue
        step = (plain[name] - start).astype(np.float64) * factor
        rounding = 4 * max(1.0, factor) * np.spacing(np.float32(np.abs(start).max() + np.abs(step).max()))
        np.testing.assert_allclose(scaled[name] - start, step, rtol=0, atol=rounding, err_msg=name)
        assert np.abs(step).max() > 100 * rounding, name


@pytest.mark.once
@pytest.mark.parametrize("options, model, message", [
    ({"model.freeze": ["stem", "layer1"]}, None,
     "model.freeze: model ResNet has no stage 'layer1'; its stages: stem, stage1, stage2, stage3, stage4, feature; "
     "also allowed: all"),
    ({"lr_factors": {"tail": 2}}, None, "lr_factors: model ResNet has no stage 'tail'; its stages: .* allowed: head"),
    ({"model.freeze": ["first"]}, Untold(), "a layer of stage first is in training mode although the stage is frozen"),
])  # fmt: skip
def test_what_cannot_be_is_refused(options, model, message):
    with pytest.raises(ConfigError, match=message):
        make_session(options, UserObjects(model=model) if model else None)


@pytest.mark.once
@pytest.mark.parametrize("name, message", [
    ("all", "'all' cannot be the name of a stage"), ("head", "'head' cannot"), ("a.b", "'a.b' cannot"),
])  # fmt: skip
def test_a_stage_has_a_name_of_its_own(name, message):
    with pytest.raises(ConfigError, match=message), Stages().stage(name, True):
        pass


@pytest.mark.once
def test_stages_are_not_nested():
    stages = Stages()
    with pytest.raises(ConfigError, match="stage b begins inside of stage a"), stages.stage("a", True):
        with stages.stage("b", True):
            pass
