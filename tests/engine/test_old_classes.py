"""The record of old classes in a checkpoint, and what is said where they cannot be measured again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from plsc.engine.training.initial_weights import InitialWeights, open_initial_weights
from plsc.engine.training.old_classes import MOST_IMAGES, Forgetting, OldClasses
from plsc.errors import ConfigError, DataError

RECORD = {"images": [2, 5], "labels": [1, 0], "right": 1}


class Data:
    sequential = False

    def __len__(self):
        return 6


def test_a_checkpoint_holds_what_a_resumed_run_needs():
    made = Forgetting.resume(SimpleNamespace(), Data(), {"best": {}, "old_classes": RECORD})
    assert made.extra == {"old_classes": RECORD}
    assert made.result(2) == OldClasses(2, 0.5, 1.0)


@pytest.mark.parametrize("change", [
    {"images": [2]}, {"images": [2, 6]}, {"images": "25"}, {"images": [2, 5.0]}, {"images": []}, {"labels": [1, None]},
    {"right": 3}, {"right": True}, {"right": -1}, {"images": [0] * (MOST_IMAGES + 1)},
])  # fmt: skip
def test_another_record_is_not_used(change):
    assert Forgetting.resume(SimpleNamespace(), Data(), {"old_classes": {**RECORD, **change}}) is None
    assert Forgetting.resume(SimpleNamespace(), Data(), {"old_classes": 3}) is None
    assert Forgetting.resume(SimpleNamespace(), Data(), {}) is None


def test_a_reader_has_no_images_to_go_back_to():
    lines = []
    run = SimpleNamespace(
        log=SimpleNamespace(info=lines.append), config=SimpleNamespace(init_from="classes", new_classes="mean")
    )
    data, initial = SimpleNamespace(sequential=True), InitialWeights("", None, np.array([0]), np.array([0]))
    session = SimpleNamespace(program=SimpleNamespace(spec=SimpleNamespace(num_classes=2)))
    assert Forgetting.begin(run, session, data, initial) is None
    assert lines == ["old classes: train_reader has an order of its own; what is forgotten is not measured"]
    with pytest.raises(ConfigError, match="new_classes='mean': train_reader gives images in its own order only; use"):
        open_initial_weights(run, None, data)


@pytest.mark.parametrize("found, reason", [
    (lambda session: (np.ones((2, 3)), np.array([1, 4])), "their labels have changed since the run began"),
    (lambda session: (_ for _ in ()).throw(DataError("a.jpg: cannot be read")), "a.jpg: cannot be read"),
])  # fmt: skip
def test_a_finished_run_does_not_fail_for_it(found, reason):
    lines = []
    made = Forgetting.resume(SimpleNamespace(log=SimpleNamespace(info=lines.append)), Data(), {"old_classes": RECORD})
    made._embed = found
    assert made.end(SimpleNamespace()) == OldClasses(2, 0.5, None)
    assert lines == [f"old classes: not measured after training: {reason}"]
