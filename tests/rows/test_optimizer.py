"""Optimizers by their names: what a class must be, which options it takes, what rows that wait get on the host."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.config import Config
from plsc.config.extensions import OPTIMIZER
from plsc.errors import ConfigError
from plsc.registry import OPTIMIZERS
from plsc.rows import RowOptimizer, Slot, register_optimizer
from plsc.rows.history import MissedStepsOnHost, RowHistory
from plsc.rows.optimizer import build_optimizer
from plsc.rows.optimizers.momentum import Momentum
from tests.reference import optimizers as reference
from tests.registries import forget_afterwards

ROWS, SIZE, DECAY = 30, 3, 0.05


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    OPTIMIZERS.names()
    forget_afterwards(monkeypatch, OPTIMIZERS)


class Adam(RowOptimizer):
    """Adam with decoupled weight decay."""

    slots = (Slot("first"), Slot("second"))

    def __init__(self, beta1: float = 0.9, beta2: float = 0.99):
        if not 0 <= beta1 < 1:
            raise ValueError(f"beta1={beta1}: must be in [0, 1)")
        self.beta1, self.beta2 = beta1, beta2

    def numbers(self, count):
        return 1 / (1 - self.beta1**count), 1 / (1 - self.beta2**count)

    def step(self, weight, slots, gradient, step):
        first = self.beta1 * slots[0] + (1 - self.beta1) * gradient
        second = self.beta2 * slots[1] + (1 - self.beta2) * gradient * gradient
        change = first * step.numbers[0] / (step.xp.sqrt(second * step.numbers[1]) + 1e-3)
        return weight - step.learning_rate * (change + step.weight_decay * weight), (first, second)


class Replayed(Momentum):
    """Momentum that makes up for missed steps one by one."""

    nothing_missed = RowOptimizer.nothing_missed
    missed = RowOptimizer.missed
    bring_up_to_date = RowOptimizer.bring_up_to_date


@pytest.mark.parametrize("optimizer, dense", [
    (Adam(), reference.AdamW(0.9, 0.99, 1e-3)), (Replayed(0.8), reference.Momentum(0.8)),
    (Momentum(0.8), reference.Momentum(0.8)),
])  # fmt: skip
def test_rows_left_alone_end_as_the_dense_optimizer_leaves_them(optimizer, dense):
    """A few rows a step get a gradient, hundreds of steps, one of them skipped; float64 on both sides."""
    rng = np.random.default_rng(2)
    expected = rng.standard_normal((ROWS, SIZE))
    weight, states = expected.copy(), dense.start(expected)
    slots = [np.zeros((ROWS, SIZE)) for _ in optimizer.slots]
    since, history, count = np.zeros(ROWS, int), RowHistory(optimizer, DECAY), 0

    def up_to_date(index):
        missed = MissedStepsOnHost(history.window(), since[index], DECAY)
        return optimizer.bring_up_to_date(weight[index], tuple(slot[index] for slot in slots), missed)

    for step in range(300):
        rate, index = 0.1 * min(1.0, step / 40), rng.choice(ROWS - 3, 4, replace=False)
        gradient = np.zeros((ROWS, SIZE))
        gradient[index] = rng.standard_normal((4, SIZE))
        skipped = step == 7
        now = up_to_date(index)
        numbers = tuple(optimizer.numbers(count + 1))
        if not skipped:
            count += 1
            expected = dense.step(expected, states, gradient, rate, DECAY, count)
            given = history.make_step(rate, numbers)
            now = optimizer.step(*now, gradient[index], given)
        weight[index], since[index] = now[0], history.steps + 1
        for slot, value in zip(slots, now[1]):
            slot[index] = value
        history.advance(rate, skipped, numbers)
    found = up_to_date(np.arange(ROWS))
    for got, wanted in zip((found[0], *found[1]), (expected, *states)):
        # float64 in another order; products of matrices, of up to 300 factors
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


def test_a_class_is_found_by_its_name_and_built_from_its_options():
    register_optimizer("adam")(Adam)
    config = Config.from_dict({"optimizer": {"name": "adam", "options": {"beta2": 0.9}}, "momentum": 0.5})
    made = build_optimizer("adam", OPTIMIZER.arguments(config.settings))
    assert (made.beta1, made.beta2, made.name, made.arguments) == (0.9, 0.9, "adam", {"beta2": 0.9})
    assert config.without_effect() == ["momentum=0.5: has no effect with optimizer.name: adam"]
    usual = build_optimizer("momentum", OPTIMIZER.arguments(Config().settings))
    assert isinstance(usual, Momentum) and usual.momentum == Config().momentum


@pytest.mark.parametrize("options, message", [
    ({"beta3": 1.0}, "={'beta3': 1.0}: optimizer 'adam': there is no option beta3; its options: beta1"),
    ({"beta1": "much"}, "beta1='much' must be float"),
    ({"beta1": 2.0}, r"optimizer 'adam' with beta1=2.0: beta1=2.0: must be in \[0, 1\)"),
])  # fmt: skip
def test_wrong_options_are_one_line(options, message):
    register_optimizer("adam")(Adam)
    config = Config.from_dict({"optimizer": {"name": "adam", "options": options}})
    with pytest.raises(ConfigError, match=message):
        build_optimizer("adam", OPTIMIZER.arguments(config.settings))
    with pytest.raises(ConfigError, match="optimizer.name='adan': is not an optimizer; did you mean adam"):
        Config().set("optimizer.name", "adan")


def test_a_users_optimizer_of_paddle_and_a_name_are_said():
    from plsc.config.user_objects import UserObjects

    class Optimizer:
        pass

    lines = UserObjects(optimizer=Optimizer()).without_effect(
        Config.from_dict({"optimizer": {"options": {"momentum": 1}}})
    )
    assert lines == ["optimizer.options={'momentum': 1}: has no effect with an optimizer of your own (set_optimizer)"]


class NoStep(RowOptimizer):
    slots = (Slot("a"),)


class Twice(Adam):
    slots = (Slot("a"), Slot("a"))


class Taken(Adam):
    slots = (Slot("weight"),)


class Half(Adam):
    def nothing_missed(self):
        return (1.0,)


class Loose(Adam):
    slots = ["a"]


@pytest.mark.parametrize("value, message", [
    (NoStep, "lacks step"), (Twice, "slots may not be called a"), (Taken, "slots may not be called weight"),
    (Half, "has nothing_missed; implement all of nothing_missed, missed, bring_up_to_date"),
    (Loose, "must be a tuple of"),
    (int, "must be a subclass of plsc.rows.RowOptimizer"), (Adam(), "must be a subclass of"),
])  # fmt: skip
def test_what_cannot_be_an_optimizer_is_refused(value, message):
    with pytest.raises(ConfigError, match=f"optimizer 'x': .*{message}") as caught:
        register_optimizer("x")(value)
    assert "\n" not in str(caught.value) and "x" not in OPTIMIZERS
