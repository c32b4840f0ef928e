"""What a run has before it, held against a plain count of samples."""

from __future__ import annotations

import pytest

from plsc.config import Config
from plsc.engine.run.scalars import Scalars
from plsc.engine.training.steps import Progress, TrainingSteps
from plsc.parallel.environment import Environment

IMAGES = 50


def plan_of(batch, world_size=1, first=None, **keys):
    config = Config()
    config.update({"train_batch_size": batch, **keys})
    return TrainingSteps.of(config, world_size, IMAGES, first or Progress())


@pytest.mark.parametrize("done, samples, batch", [(0, 0, 7), (9, 63, 7), (9, 63, 5), (9, 63, 20), (4, 80, 7)])
def test_a_run_of_epochs_uses_all_samples_of_them(done, samples, batch):
    plan = plan_of(batch, first=Progress(done, samples), train_epochs=3)
    assert plan.samples(plan.last) >= 3 * IMAGES > plan.samples(plan.last - 1)
    ends = [step for step in range(done + 1, plan.last + 1) if plan.ends_epoch(step)]
    counted = [step for step in range(done + 1, plan.last + 1)
               if any((samples + (step - done) * batch) >= e * IMAGES > (samples + (step - done - 1) * batch)
                      for e in range(1, 9))]  # fmt: skip
    assert ends == counted and len(ends) >= 1


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_no_sample_is_left_out_or_used_twice_when_the_global_batch_changes(world_size):
    """9 steps of 7, then steps of 4: together an uninterrupted stream."""
    before = plan_of(7, train_steps=9)
    stream = before.sampler(1, Environment(), 3)
    straight = [stream_at(stream, 7, place) for place in range(120)]
    after = plan_of(4 // world_size, world_size, Progress(9, 63), train_steps=20)
    first, last = after.data_steps()
    assert last - first == 11
    seen = []
    for step in range(first, last):
        for rank in range(world_size):
            env = Environment(rank=rank, world_size=world_size)
            seen += list(zip(*after.sampler(4 // world_size, env, 3).indices(step)))
    assert seen == straight[63:107]


def stream_at(sampler, batch, place):
    from plsc.data import GlobalBatchSampler

    one = GlobalBatchSampler(sampler.num_samples, 1, 0, 1, sampler.seed)
    return tuple(part[0] for part in one.indices(place))


def test_boundaries_in_epochs_stay_where_the_epochs_end():
    schedule = {"kind": "piecewise", "unit": "epoch", "boundaries": [2], "decay_factor": 0.5}
    # ten steps of 5 are one epoch; then with a batch of 10 the second one takes five steps
    plan = plan_of(10, first=Progress(10, 50), train_epochs=3, lr_schedule=schedule, lr=1.0, lr_reference_batch=10)
    assert [plan.schedule.lr(step) for step in (10, 14, 15, 19)] == [1.0, 1.0, 0.5, 0.5]
    assert plan.last == 20


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "cosine"},
        {"kind": "cosine", "warmup_epochs": 1},
        {"kind": "polynomial", "power": 2.0},
        {"kind": "cosine_restarts", "options": {"cycles": 2}},
        {"kind": "one_cycle", "options": {"shape": "linear"}},
    ],
    ids=lambda schedule: schedule["kind"],
)
@pytest.mark.parametrize("batch", [5, 20])
def test_the_learning_rate_follows_the_samples_when_the_global_batch_changes(schedule, batch):
    """After 20 steps of 10 the run goes on as one that had the new batch from its first step."""
    keys = {"train_epochs": 10, "lr_schedule": schedule, "lr": 1.0, "lr_reference_batch": batch}
    straight, plan = plan_of(batch, **keys), plan_of(batch, first=Progress(20, 200), **keys)
    done = 200 // batch
    assert plan.last - 20 == straight.last - done == (500 - 200) // batch
    rates = [plan.schedule.lr(step) for step in range(20, plan.last)]
    assert rates == [straight.schedule.lr(step) for step in range(done, straight.last)] and len(set(rates)) > 5
    again = plan_of(batch, first=Progress(25, 200 + 5 * batch), **keys)  # stopped once more: the same to the bit
    assert [again.schedule.lr(step) for step in range(25, again.last)] == rates[5:]


@pytest.mark.parametrize("batch", [5, 20])
def test_a_warm_up_in_steps_stays_when_the_global_batch_changes(batch):
    keys = {"train_epochs": 10, "lr_schedule": {"kind": "cosine", "warmup_steps": 24}, "lr": 1.0}
    plan = plan_of(batch, first=Progress(20, 200), lr_reference_batch=batch, **keys)
    assert [plan.schedule.lr(step) for step in (20, 23)] == [20 / 24, 23 / 24]
    rates = [plan.schedule.lr(step) for step in range(24, plan.last)]
    assert rates == sorted(rates, reverse=True) and rates[0] > 0.8 and rates[-1] < 0.05


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path):
    path = tmp_path / "scalars.jsonl"
    for left, kept in ((b'{"step": 1}\n{"ste', b'{"step": 1}\n'), (b'{"st', b""), (b'{"step": 1}\n', b'{"step": 1}\n')):
        path.write_bytes(left)
        scalars = Scalars(str(tmp_path), "none")
        scalars.add(2, {})
        scalars.close()
        assert path.read_bytes() == kept + b'{"step": 2}\n'
