"""Steps that are fed before it is known whether the one before was skipped: the same to the bit as if it were known."""

from __future__ import annotations

from unittest import mock

import numpy as np
import paddle
import pytest

from plsc.engine.program.results import Reading
from plsc.rows import history
from plsc.rows.skipped import IF_SKIPPED
from tests.optim.test_loss_scaling import CLASSES, Run

paddle.enable_static()
BAD = (2, 3, 5, 9)  # of 12 steps: after one another, alone, around the end of a window of 5 steps
SAMPLED = {"num_classes": CLASSES, "scale": 16.0, "sample_ratio": 0.3}
OTHERS = {
    "momentum": {"classifier": SAMPLED},
    "adamw": {"classifier": SAMPLED, "optimizer": {"name": "adamw"}},
    "adamw, repeated": {"classifier": SAMPLED, "optimizer": {"name": "adamw", "options": {"beta1": 0.9, "beta2": 0.5}}},
    "adamw, lazy": {"classifier": SAMPLED, "optimizer": {"name": "adamw"}, "class_optimizer": {"sparse": "lazy"}},
    "adamw, all classes": {"optimizer": {"name": "adamw"}},
    "hard negatives": {"classifier": {**SAMPLED, "hard_negative_share": 0.5}},
}


def run(ahead: int, others: dict):
    """(run, losses, what each step was fed) of 12 steps, each read when ``ahead`` further ones have been started."""
    made, fed, begun, losses = Run(True, others=others, reading=Reading(ahead=ahead)), [], [], []
    copies = made.session.reading.copies
    send = copies.send
    with mock.patch.object(type(copies), "send", lambda self, feed: fed.append(feed) or send(feed)):
        for step in range(12):
            begun.append(made.step(bad=step in BAD))
            if step >= ahead:
                losses.append(dict(begun[step - ahead]))
    losses += [dict(results) for results in begun[len(losses) :]]
    return made, losses, fed


@pytest.mark.parametrize("others", OTHERS)
def test_what_is_fed_for_both_cases_is_the_same_to_the_bit(monkeypatch, others):
    monkeypatch.setattr(history, "WINDOW_STEPS", 5)
    in_time, losses, fed_in_time = run(0, OTHERS[others])
    late, late_losses, fed_late = run(1, OTHERS[others])
    np.testing.assert_equal(late_losses, losses)
    assert [bool(found["skipped"]) for found in losses] == [step in BAD for step in range(12)]
    for name, value in in_time.trained().items():
        np.testing.assert_array_equal(late.trained()[name], value, err_msg=name)
    both = [name for name in fed_late[0] if name + IF_SKIPPED in fed_late[0]]
    assert both and all(np.array_equal(one[n], one[n + IF_SKIPPED]) for one in fed_in_time for n in both)
    differ = [any(not np.array_equal(one[n], one[n + IF_SKIPPED]) for n in both) for one in fed_late]
    assert not differ[0]  # nothing has been skipped before the first step
    if others != "adamw, lazy":
        assert sum(differ) >= 8  # all but those in which a window ended
