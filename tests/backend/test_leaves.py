"""The values that gradients are asked by: parts of a gradient must add up, whatever made the value and however often it
is used. Held against differences of the function, and those of the loss for nets as users write them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import paddle
import pytest

from plsc.backend import autodiff, static
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.engine.program.session import Session
from plsc.errors import ConfigError
from plsc.models import BaseModel
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group

ROOT = Path(__file__).resolve().parents[2]
paddle.enable_static()
LABELS = np.array([2, 0, 1, 2])
MAKERS = {
    "fed": lambda label: paddle.static.data("given", [4, 3], "float32"),
    "without a gradient of its own": lambda label: paddle.nn.functional.one_hot(label, 3),
    "a product": lambda label: paddle.nn.functional.one_hot(label, 3) * 0.5,
    "a piece": lambda label: paddle.split(paddle.nn.functional.one_hot(label, 6), 2, axis=1)[0],
}


def check_parts(maker, value_of):
    """The gradient of a function in which the value is used four times, against the formula."""
    main = paddle.static.Program()
    with static.building(main, paddle.static.Program()):
        value = value_of(MAKERS[maker](paddle.static.data("label", [4], "int64")))
        value.stop_gradient = False
        target = paddle.sum(value * value + paddle.sin(value)) + paddle.sum(paddle.exp(value))
        (gradient,) = autodiff.gradients(target, [value])
    feed = {"label": LABELS, "given": np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)}
    feed = feed if maker == "fed" else {"label": LABELS}
    at, got = paddle.static.Executor(paddle.CPUPlace()).run(main, feed=feed, fetch_list=[value, gradient])
    np.testing.assert_allclose(got, 2 * at + np.cos(at) + np.exp(at), rtol=1e-6)  # float32


@pytest.mark.parametrize("maker", MAKERS)
def test_parts_of_a_gradient_add_up(maker):
    check_parts(maker, autodiff.as_leaf)


@pytest.mark.parametrize("maker", ["without a gradient of its own", "a piece"])
def test_another_value_is_refused_where_they_would_not(maker):
    if not static.is_pir():  # Paddle 2.6 adds up everywhere
        return check_parts(maker, lambda value: value)
    with pytest.raises(ValueError, match="autodiff.as_leaf"):
        check_parts(maker, lambda value: value)


def test_nobody_else_asks_paddle():
    pattern = re.compile(r"static\.gradients\(|append_backward\(|calc_gradient|\.minimize\(|paddle\.grad\(")
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "plsc").rglob("*.py") if pattern.search(path.read_text())}
    assert found == {"plsc/backend/autodiff.py"}


class Net(BaseModel):
    """``of(x)`` [B, E] of the flat image, by what is in tests/backend/test_leaves.py."""

    def __init__(self, of):
        self.of = of

    def build_network(self, input, label, is_train=True):
        return self.of(paddle.flatten(input, 1))


def layer_twice(x):
    layer = paddle.nn.Linear(12, 12)
    return layer(paddle.tanh(layer(x)))


def weight_twice(x):
    layer = paddle.nn.Linear(12, 12)
    return paddle.tanh(layer(x)) + paddle.matmul(x, layer.weight, transpose_y=True)


def value_often(x):
    hidden = paddle.nn.Linear(12, 12)(x)
    left, right = paddle.split(hidden, 2, axis=1)
    return paddle.concat([left * right, paddle.tanh(left), hidden * hidden], axis=1) + paddle.tile(hidden, [1, 2])


def named_twice(x):
    """Two layers that share a weight by its name, each with a bias of its own."""
    attr = paddle.ParamAttr(name="shared")
    hidden = paddle.nn.Linear(12, 12, weight_attr=attr)(x)
    return hidden + paddle.tanh(paddle.nn.Linear(12, 12, weight_attr=attr)(paddle.tanh(hidden)))


def written_over(x):
    hidden = paddle.nn.Linear(12, 12)(x)
    kept = paddle.tanh(hidden)
    paddle.assign(hidden * kept, output=kept)
    return hidden + paddle.nn.Linear(12, 12)(kept)


def one_of_two(x):
    hidden = paddle.nn.Linear(12, 12)(x)
    positive = paddle.sum(x) > -1e6
    chosen = paddle.static.nn.cond(positive, lambda: hidden * hidden, lambda: hidden * 2.0)
    return chosen + paddle.tanh(hidden)


def assigned(x):
    hidden = paddle.nn.Linear(12, 12)(x)
    copy = paddle.assign(hidden)
    return paddle.tanh(hidden) + copy * hidden


def normalised_twice(x):
    hidden = paddle.nn.Linear(12, 12)(x)
    norm = paddle.nn.LayerNorm(12)
    return norm(hidden) + norm(paddle.tanh(norm(hidden)))


NETS = [layer_twice, weight_twice, value_often, named_twice, one_of_two, assigned, normalised_twice]


def run_of(of):
    config = Config.from_dict(
        {
            "classifier": {"num_classes": 9, "scale": 8.0},
            "model": {"image_shape": [3, 2, 2]},
            "train_batch_size": 6,
            "weight_decay": 0.0,
        }
    )
    program = build_train(config, UserObjects(model=Net(of)), Environment(), seed=7)
    session = Session(program, Environment(), seed=7)
    session.start(Group(Environment()))
    rng = np.random.default_rng(3)
    inputs = {"image": rng.standard_normal((6, 3, 2, 2)).astype("float32"), "label": rng.integers(0, 9, 6)}
    return session, lambda rate: session.step(0, inputs, rate)["loss"]


@pytest.mark.parametrize("of", NETS, ids=[net.__name__ for net in NETS])
def test_a_users_net_gets_its_gradients(of):
    """The momentum after the first step, which is the gradient, against the loss a little to both sides along it."""
    session, loss_at = run_of(of)
    weights = {p.name: session.replicated()[p.name] for p in session.program.parameters}
    first = {name: rows for name, _, rows in session.blocks()}
    loss_at(0.0)
    states = session.replicated()
    velocity = {name[len("velocity.") :]: value for name, value in states.items() if name.startswith("velocity.")}
    assert sorted(velocity) == sorted(weights)
    moved = [name for name in weights if np.abs(velocity[name]).max() > 1e-4]
    assert moved
    for name in moved:
        slope = float((velocity[name].astype("float64") ** 2).sum())
        reach = 3e-3 / np.sqrt(slope)  # the step; float32 losses are off by 1e-6, differences so by 1e-6 / 3e-3
        sides = []
        for sign in (1.0, -1.0):
            session.load_replicated({**weights, name: weights[name] + np.float32(sign * reach) * velocity[name]})
            session.load_rows([("weight", 0, first["weight"])])
            sides.append(loss_at(0.0))
        assert (sides[0] - sides[1]) / (2 * reach) == pytest.approx(slope, rel=5e-3, abs=1e-3 * np.sqrt(slope)), name


def test_a_net_that_writes_over_its_values_is_refused():
    with pytest.raises(ConfigError, match="model Net: paddle.assign.*overwrites a value"):
        run_of(written_over)
