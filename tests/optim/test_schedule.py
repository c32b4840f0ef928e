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


# Rates of steps 0, 1, 7, 19, 20, 29, 30, 50 and 69 of 70, printed by torch.optim.lr_scheduler of PyTorch 2.5.1 with the
# rate 0.4: CosineAnnealingWarmRestarts(T_0=10, T_mult=2, eta_min=0.01), the same with T_mult=1 and eta_min=0,
# OneCycleLR(max_lr=0.4, total_steps=70, final_div_factor=16) with both anneal_strategy, the first again with
# pct_start=0.25, div_factor=10, final_div_factor=1e4, and PolynomialLR(total_iters=70, power=2).
TORCH_STEPS = (0, 1, 7, 19, 20, 29, 30, 50, 69)
TORCH_RATES = [
    ("cosine_restarts", {"end_lr": 0.01, "options": {"cycles": 3, "growth": 2}},
     [0.4, 0.39045602067755497, 0.09038187580296776, 0.23550472068284506, 0.20500000000000002, 0.012400773583948158,
      0.4, 0.20500000000000002, 0.010601119922040048]),
    ("cosine_restarts", {"options": {"cycles": 7}},
     [0.4, 0.39021130325903075, 0.0824429495415054, 0.009788696740969294, 0.4, 0.009788696740969294, 0.4, 0.4,
      0.009788696740969294]),
    ("one_cycle", {"end_lr": 0.001},
     [0.016000000000000014, 0.01836383860573354, 0.12083382405000703, 0.39763616139426644, 0.4, 0.36769857692592217,
      0.36038201756265736, 0.13159967164294917, 0.001]),
    ("one_cycle", {"end_lr": 0.001, "options": {"shape": "linear"}},
     [0.016, 0.0352, 0.15039999999999998, 0.3808, 0.4, 0.32671428571428573, 0.3185714285714286, 0.15571428571428572,
      0.0010000000000000009]),
    ("one_cycle", {"end_lr": 4e-6, "options": {"rise": 0.25, "start_factor": 0.1}},
     [0.03999999999999998, 0.04325283449271278, 0.17756339160830306, 0.39776618758337323, 0.3956295638515597,
      0.34661090826222163, 0.338213147672075, 0.11593139505254356, 4e-06]),
    ("polynomial", {"power": 2.0},
     [0.4, 0.38865306122448984, 0.32399999999999995, 0.21232653061224502, 0.20408163265306134, 0.13722448979591842,
      0.13061224489795925, 0.03265306122448981, 8.1632653061224e-05]),
]  # fmt: skip


@pytest.mark.parametrize("kind, changes, expected", TORCH_RATES)
def test_rates_are_those_of_pytorch(kind, changes, expected):
    plan = schedule(kind, total_steps=70, **changes)
    assert [plan.lr(step) for step in TORCH_STEPS] == pytest.approx(expected, rel=1e-12)


def test_restarts_against_a_loop_over_cycles():
    """Cycles of 10, 15 and 22.5 steps after a warm-up: each begins in the first step at or after the end of the last,
    where the cosine has already begun."""
    plan = schedule("cosine_restarts", total_steps=52, warmup_steps=5, end_lr=0.1,
                    options={"cycles": 3, "growth": 1.5})  # fmt: skip
    length, begin, expected = 47 / 4.75, 5.0, []
    for step in range(5, 52):
        if step >= begin + length:
            begin, length = begin + length, 1.5 * length
        expected.append(0.25 + 0.15 * math.cos(math.pi * (step - begin) / length))
    assert rates(plan, 52)[5:] == pytest.approx(expected, rel=1e-12)
    assert rates(plan, 5) == pytest.approx([0.08 * step for step in range(5)], rel=1e-12)
    assert plan.lr(52) == plan.lr(1000) == pytest.approx(0.1, rel=1e-12)


def test_a_restart_is_in_its_step_for_any_number_of_cycles():
    """In floats 69 / (1 + 1.3) is above 30: that restart would then come one step late."""
    assert 69 / 2.3 > 30
    for options, steps, expected in [
        ({"cycles": 2, "growth": 1.3}, 69, [0, 30]), ({"cycles": 3, "growth": 1.4}, 109, [0, 25, 60]),
        *(({"cycles": cycles}, 30 * cycles, list(range(0, 30 * cycles, 30))) for cycles in (3, 7, 49)),
    ]:  # fmt: skip
        plan = schedule("cosine_restarts", total_steps=steps, options=options)
        assert [step for step in range(steps) if plan.lr(step) == 0.4] == expected


def test_one_cycle_rises_and_falls():
    plan = schedule("one_cycle", options={"rise": 0.2, "start_factor": 0.25, "shape": "linear"}, end_lr=0.08)
    expected = [0.1 + 0.3 * step / 19 if step <= 19 else 0.4 - 0.32 * (step - 19) / 80 for step in range(100)]
    assert rates(plan) == pytest.approx(expected, rel=1e-12)
    assert plan.lr(100) == plan.lr(10**6) == pytest.approx(0.08, rel=1e-12)
    for steps in (1, 2, 3, 4):  # too short to rise, or to fall
        assert all(0.0 <= rate <= 0.4 for rate in rates(schedule("one_cycle", total_steps=steps), steps))
    assert schedule("one_cycle", total_steps=3).lr(0) == 0.4


@pytest.mark.parametrize("kind, changes, message", [
    ("one_cycle", {"warmup_steps": 3}, "'one_cycle': rises by itself and has no warm-up, here 3 steps; remove"),
    ("one_cycle", {"options": {"rise": 1.0}}, r"options: rise=1.0: must be a number in \(0, 1\)"),
    ("one_cycle", {"options": {"start_factor": -1}}, r"start_factor=-1: must be a number in \[0, 1\]"),
    ("one_cycle", {"options": {"shape": "sine"}}, "shape='sine': must be one of cosine, linear"),
    ("cosine_restarts", {"options": {"cycles": 0}}, "cycles=0: must be at least 1"),
    ("cosine_restarts", {"options": {"cycles": 2, "growth": 0.0}}, "growth=0.0: must be a number above 0"),
    ("cosine_restarts", {"options": {"cycles": 2, "growth": math.nan}}, "growth=nan: must be a number above 0"),
    ("cosine_restarts", {"end_lr": 0.5, "options": {"cycles": 2}}, "end_lr=0.5: is above the scaled learning rate"),
])  # fmt: skip
def test_wrong_options_of_schedules(kind, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        schedule(kind, **changes)
    assert "\n" not in str(caught.value)


def test_restarts_need_their_number():
    config = Config.from_dict({"lr_schedule": {"kind": "cosine_restarts"}})
    with pytest.raises(ConfigError, match="the option cycles is missing; its options: cycles"):
        schedule_from_config(config, 512, 10, 100)


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
