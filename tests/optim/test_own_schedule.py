"""Schedules that users write: what they are given, and every mistake as one clear line."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.errors import ConfigError
from plsc.optim.schedule import schedule_from_config
from plsc.optim.schedules import progress, register_schedule
from plsc.registry import SCHEDULES
from tests.registries import forget_afterwards


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    SCHEDULES.names()
    forget_afterwards(monkeypatch, SCHEDULES)


def settings(**schedule) -> Config:
    return Config.from_dict({"lr": 0.4, "lr_schedule": {"kind": "mine", **schedule}})


def plan(config: Config, steps: int = 100):
    return schedule_from_config(config, 512, 1000, steps)


def test_a_schedule_gets_what_it_names_and_its_options():
    asked = []

    @register_schedule("mine")
    def mine(step, total_steps, boundaries, base_lr, factor: float, end_lr=7.0):
        asked.append((step, total_steps, boundaries, base_lr, factor, end_lr))
        return base_lr * factor / (step + 1)

    options = {"factor": 2.0}
    found = plan(settings(warmup_steps=4, unit="epoch", boundaries=[20], end_lr=0.1, options=options))
    del asked[:]
    assert found.lr(2) == 0.4 * 2 / 4 and asked == []  # the warm-up is common to all
    assert found.lr(9) == pytest.approx(0.08, rel=1e-15)
    assert asked == [(9, 100, (40,), 0.4, 2.0, 0.1)]  # 20 epochs of 1000 images in batches of 512: ceil(39.06)


def test_progress():
    assert [progress(step, 10, 20) for step in (10, 15, 19, 20, 30)] == [0.0, 0.5, 0.9, 1.0, 1.0]
    assert progress(10, 10, 5) == progress(10, 10, 10) == 1.0  # the run is shorter than its warm-up


def test_what_it_does_not_take_has_no_effect():
    register_schedule("mine")(lambda step, decay_factor: 0.1)
    lines = settings(unit="epoch", boundaries=[3], decay_factor=0.5, power=2.0, end_lr=0.1).without_effect()
    assert [line.partition("=")[0] for line in lines] == [
        "lr_schedule.unit", "lr_schedule.boundaries", "lr_schedule.power", "lr_schedule.end_lr"
    ]  # fmt: skip
    assert all(line.endswith("has no effect with lr_schedule.kind: mine") for line in lines)
    assert plan(settings(warmup_steps=50, boundaries=[3])).without_effect() == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"factr": 1.0}, "schedule 'mine': there is no option factr; its options: factor (float)"),
        ({"factor": "two"}, "factor='two' must be float"),
        ({}, "the option factor is missing"),
        ({"factor": 1.0, "base_lr": 1.0}, "base_lr is a setting of its own: lr"),
    ],
)
def test_wrong_options(options, text):
    @register_schedule("mine")
    def mine(step, base_lr, factor: float):
        return base_lr * factor

    for check in (lambda config: UserObjects().check(config), plan):
        with pytest.raises(ConfigError) as caught:
            check(settings(options=options))
        assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (lambda step, base_lr: -base_lr, "lr_schedule.kind='mine': returned -0.4 at step 0; a learning rate must be"),
        (lambda step: math.nan if step == 99 else 1.0, "returned nan at step 99"),
        (lambda step: math.inf if step == 50 else 1.0, "returned inf at step 50"),
        (lambda step: None, "returned None at step 0"),
        (lambda step: True, "returned True at step 0"),
        (lambda step: 1 / 0, "step 0: raised ZeroDivisionError: division by zero (test_own_schedule.py:"),
    ],
)
def test_what_is_no_rate_is_said_before_the_run(rate, text):
    register_schedule("mine")(rate)
    with pytest.raises(ConfigError) as caught:
        plan(settings())
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_rate_may_be_a_number_of_numpy():
    register_schedule("mine")(lambda step: np.float32(0.5))
    assert type(plan(settings()).lr(3)) is float


@pytest.mark.parametrize(
    ("value", "text"),
    [(lambda: 0.1, r"schedule 'mine': takes \(\); it must take step, then options"), (0.1, "'mine': is float, nei")],
)
def test_another_signature_is_refused(value, text):
    with pytest.raises(ConfigError, match=text):
        register_schedule("mine")(value)
    with pytest.raises(ConfigError, match=r"'mine': is not a schedule; .*allowed: cosine, cosine_restarts, one_cycle"):
        settings()


def test_a_name_that_is_taken():
    with pytest.raises(ConfigError, match="schedule 'cosine': the name is taken by plsc.optim.schedules.cosine.cosine"):
        register_schedule("cosine")(lambda step: 0.1)
