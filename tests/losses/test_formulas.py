"""The losses of PLSC against their formulas in NumPy float64, their slopes, and what check_slopes finds."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.config import Config
from plsc.errors import ConfigError
from plsc.losses import Batch, Loss
from plsc.losses.slopes import check_slopes
from plsc.registry import LOSSES
from tests.reference import margin_softmax

paddle.enable_static()
COMBINED = {"margin1": 0.9, "margin2": 0.4, "margin3": 0.15}
NAMES = [entry.name for entry in LOSSES.entries() if entry.module.startswith("plsc.")]
MARGINS = {"arcface": (1, 0.5, 0), "cosface": (1, 0, 0.35), "sphereface": (1.35, 0, 0), "softmax": (1, 0, 0),
           "combined": tuple(COMBINED.values())}  # fmt: skip
# of a loss whose default constants do not show the norms from 1 to 100, or that takes them for constants
CHECKS = {"adaface": {"states": {"mean": 50.0, "deviation": 20.0}, "norm_is_constant": True}}


def made(name) -> Loss:
    return Config.from_dict({"classifier": {"loss_type": name, **(COMBINED if name == "combined" else {})}}).loss()


def target(loss, cosine):
    main = paddle.static.Program()
    with paddle.static.program_guard(main, paddle.static.Program()):
        value = paddle.static.data("cosine", [-1], "float64")
        found = loss.target(Batch(lambda: value, lambda: None, {}, lambda stream: None))
    return paddle.static.Executor(paddle.CPUPlace()).run(main, feed={"cosine": cosine}, fetch_list=list(found))


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_true(name):
    check_slopes(made(name), **CHECKS.get(name, {}))


@pytest.mark.parametrize("name", MARGINS)
def test_values_are_those_of_the_paper(name):
    cosine = np.array([-0.99, -0.7, 0.0, 0.3, 0.9, 0.99])
    for got, expected in zip(target(made(name), cosine), margin_softmax.target_cosine(cosine, MARGINS[name])):
        # Paddle keeps numbers such as margins in float32: off by 6e-8 of them, times a factor of up to pi and slopes
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


class Good(Loss):
    """Every slope is true, and each can be changed."""

    def __init__(self, **factors):
        self.factors = {"slope": 1.0, "norm": 1.0, "penalty": 1.0, "others": 1.0, **factors}

    def target(self, batch):
        norm_slope = -0.2 * self.factors["norm"] * batch.norm
        return batch.cosine**3 - 0.1 * batch.norm**2, 3.0 * self.factors["slope"] * batch.cosine**2, norm_slope

    def others(self, cosine, batch):
        return cosine * (cosine + batch.target), self.factors["others"] * (2.0 * cosine + batch.target)

    def penalty(self, batch):
        return 1.0 / batch.norm, -self.factors["penalty"] / batch.norm**2


def test_check_slopes_lets_true_ones_pass():
    check_slopes(Good())


@pytest.mark.parametrize("factor, message", [
    ("slope", "the slope at"), ("norm", "the slope by the norm at"), ("penalty", "the slope of the penalty at"),
    ("others", "the slope of others at"),
])  # fmt: skip
def test_check_slopes_finds_a_wrong_one(factor, message):
    with pytest.raises(ConfigError, match=f"loss Good: {message} .*, finite differences give"):
        check_slopes(Good(**{factor: 1.001}))


def test_check_slopes_finds_a_missing_one():
    class Forgotten(Good):
        def target(self, batch):
            return super().target(batch)[:2]

    with pytest.raises(ConfigError, match="loss Forgotten: the slope by the norm at"):
        check_slopes(Forgotten())


def test_check_slopes_finds_what_is_not_finite():
    class Edge(Loss):
        def target(self, batch):
            angle = paddle.acos(batch.cosine)
            return paddle.cos(angle + 0.5), paddle.sin(angle + 0.5) / paddle.sin(angle)

    with pytest.raises(ConfigError, match="loss Edge: slope is not finite at a cosine of -1, 0 or 1"):
        check_slopes(Edge())
