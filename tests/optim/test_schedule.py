"""The learning rate against plain loops and closed values. Tolerance: a few float64 roundings, so rel 1e-12."""

from __future__ import annotations

import math

import pytest

from plsc.config import Config
from plsc.errors import ConfigError
from plsc.optim.schedule import LearningRateSchedule, epochs_to_steps, run_length, schedule_from_config


def schedule(kind="piecewise", **changes) -> LearningRateSchedule:
    values = {
        "base_lr": 0.4, "kind": kind, "total_steps": 100, "warmup_steps": 0, "boundaries": (), "decay_factor": 0.1,
        "power": 1.0, "end_lr": 0.0, **changes,
    }  # fmt: skip
    return LearningRateSchedule(**values)


def rates(plan: LearningRateSchedule, steps: int = 100) -> list[float]:
    return [plan.lr(step) for step in range(steps)]


def test_epochs_to_steps_counts_images():
    """Against a loop that hands out images: the step that finishes epoch e."""
    for num_images, global_batch in [(10, 3), (100, 7), (7, 7), (5822653, 1024)]:
        for epochs in (1, 2, 3, 5):
            steps, handed_out = 0, 0
            while handed_out < epochs * num_images:
                handed_out += global_batch
                steps += 1
            assert epochs_to_steps(epochs, num_images, global_batch) == steps


def test_epochs_to_steps_of_fractions_is_exact():
    assert epochs_to_steps(0.1, 1000, 1) == 100
    assert epochs_to_steps(0.0, 1000, 3) == 0
    assert epochs_to_steps(1e-05, 1000000, 1) == 10
    # In floats these products come out above the integer, and their ceil is one too many.
    assert math.ceil(0.07 * 100) == 8 and epochs_to_steps(0.07, 100, 1) == 7
    assert math.ceil(27 * (7 / 3)) == 64 and epochs_to_steps(27, 7, 3) == 63


def test_run_length():
    config = Config.from_dict({"train_epochs": 3})
    assert run_length(config, global_batch=4, num_images=10) == 8
    config.set("train_steps", 5)
    assert run_length(config, global_batch=4, num_images=10) == 5


def test_piecewise_against_a_loop():
    expected, rate = [], 0.4
    for step in range(100):
        if step in (30, 60, 61):
            rate *= 0.1
        expected.append(rate)
    assert rates(schedule(boundaries=(30, 60, 61))) == pytest.approx(expected, rel=1e-12)


def test_warmup_against_a_loop():
    expected = []
    for step in range(100):
        expected.append(0.4 * step / 8 if step < 8 else 0.4 if step < 50 else 0.04)
    found = rates(schedule(warmup_steps=8, boundaries=(50,)))
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[0] == 0.0 and found[8] == 0.4 and found[4] == 0.2


def test_warmup_begins_below_the_rate_at_every_batch():
    """PLSC 0.x began at the unscaled rate, so that below its reference batch the rate fell (prior-systems.md 2.4)."""
    for global_batch in (64, 512, 4096):
        config = Config.from_dict({"lr_schedule": {"warmup_steps": 10}})
        found = rates(schedule_from_config(config, global_batch, 1000, 50), 11)
        assert found == sorted(found) and found[0] == 0.0
        assert found[10] == pytest.approx(0.1 * global_batch / 512, rel=1e-12)


def test_polynomial_closed_values():
    plan = schedule("polynomial", warmup_steps=20, end_lr=0.1, power=2.0)
    for step, value in [(10, 0.2), (20, 0.4), (60, 0.1 + 0.3 * 0.25), (80, 0.1 + 0.3 / 16), (100, 0.1), (500, 0.1)]:
        assert plan.lr(step) == pytest.approx(value, rel=1e-12)
    line = rates(schedule("polynomial"))
    assert line == pytest.approx([0.4 - 0.004 * step for step in range(100)], rel=1e-12)


def test_cosine_closed_values():
    plan = schedule("cosine", warmup_steps=4, end_lr=0.1)
    values = [(4, 0.4), (28, 0.25 + 0.15 * math.sqrt(0.5)), (52, 0.25), (36, 0.325), (68, 0.175), (100, 0.1)]
    for step, value in values:
        assert plan.lr(step) == pytest.approx(value, rel=1e-12)


def test_a_trial_run_shorter_than_its_warmup_still_has_rates():
    for kind in ("piecewise", "polynomial", "cosine"):
        plan = schedule(kind, total_steps=5, warmup_steps=10)
        assert rates(plan, 5) == pytest.approx([0.04 * step for step in range(5)], rel=1e-12)


def test_scaling_by_the_global_batch():
    config = Config.from_dict({"lr": 0.1})
    assert schedule_from_config(config, 1024, 100, 10).base_lr == pytest.approx(0.2, rel=1e-12)
    config.set("lr_reference_batch", 1024)
    assert schedule_from_config(config, 1024, 100, 10).base_lr == pytest.approx(0.1, rel=1e-12)


def test_durations_in_epochs():
    settings = {"unit": "epoch", "boundaries": [2, 3], "warmup_epochs": 0.5, "decay_factor": 0.5}
    plan = schedule_from_config(Config.from_dict({"lr_schedule": settings}), 4, 10, 100)
    # ceil(2 * 10 / 4), ceil(3 * 10 / 4), ceil(0.5 * 10 / 4)
    assert (plan.boundaries, plan.warmup_steps, plan.decay_factor) == ((5, 8), 2, 0.5)
    plan = schedule_from_config(Config.from_dict({"lr_schedule": {"warmup_steps": 7}}), 4, 10, 100)
    assert (plan.boundaries, plan.warmup_steps, plan.total_steps) == ((100000, 140000, 160000), 7, 100)


def test_all_of_the_section_arrives():
    section = {"kind": "polynomial", "power": 3, "end_lr": 1e-3}
    plan = schedule_from_config(Config.from_dict({"lr_schedule": section}), 512, 10, 100)
    assert (plan.kind, plan.power, plan.end_lr, plan.total_steps) == ("polynomial", 3.0, 1e-3, 100)


def test_refusals():
    with pytest.raises(ConfigError, match="the first is step 5, inside the warm-up of 8 steps"):
        schedule(warmup_steps=8, boundaries=(5, 20))
    with pytest.raises(ConfigError, match="end_lr=0.5: is above the scaled learning rate 0.4"):
        schedule("cosine", end_lr=0.5)


def test_what_a_run_is_too_short_for_is_said():
    assert schedule(boundaries=(50,), warmup_steps=10).without_effect() == []
    assert schedule(boundaries=(99,)).without_effect() == []
    (line,) = schedule(boundaries=(50, 100, 200)).without_effect()
    assert "[100, 200] lie beyond the 100 steps" in line
    (line,) = schedule("cosine", warmup_steps=100, boundaries=(100,)).without_effect()
    assert "warm-up of 100 steps" in line
    assert schedule(boundaries=(100000, 140000, 160000)).without_effect() == []  # the default: nobody has set it
