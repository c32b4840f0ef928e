"""The state of a user's scheduler comes from a file: what is not one is refused before it is used."""

from __future__ import annotations

import pytest
from paddle.optimizer import lr

from plsc.engine.training.checkpointing import plain, restore_scheduler
from plsc.errors import CheckpointError


def warmed(steps: int):
    scheduler = lr.LinearWarmup(lr.CosineAnnealingDecay(0.5, 8), 2, 0.0, 0.5)
    for _ in range(steps):
        scheduler.step()
    return scheduler


def test_it_goes_on_where_it_was():
    before, after = warmed(5), warmed(0)
    restore_scheduler(after, "step_00000005", plain(before.state_dict()))
    for _ in range(4):
        assert after.get_lr() == before.get_lr()
        before.step(), after.step()


@pytest.mark.parametrize("change, message", [
    ({"last_epoch": None}, "has last_epoch=None"),
    ({"last_epoch": "5"}, "has last_epoch='5'"),
    ({"last_epoch": True}, "has last_epoch=True"),
    ({"last_lr": [0.1]}, "has last_lr=[0.1]"),
    ({"LinearWarmup_LR": 3}, "has LinearWarmup_LR=3"),
    ({"LinearWarmup_LR": {"last_epoch": {}, "last_lr": 0.1}}, "LinearWarmup_LR has last_epoch={}"),
    ({"LinearWarmup_LR": {}}, "LinearWarmup_LR has no last_epoch"),
])  # fmt: skip
def test_what_is_none_is_refused(change, message):
    scheduler = warmed(0)
    state, before = {**plain(warmed(5).state_dict()), **change}, scheduler.state_dict()
    with pytest.raises(CheckpointError) as caught:
        restore_scheduler(scheduler, "step_00000005", state)
    assert message in str(caught.value) and "LinearWarmup" in str(caught.value) and "\n" not in str(caught.value)
    assert scheduler.state_dict() == before


def test_that_of_another_scheduler_is_refused():
    with pytest.raises(CheckpointError, match="has no LinearWarmup_LR"):
        restore_scheduler(warmed(0), "step_00000005", plain(lr.StepDecay(0.1, 3).state_dict()))
