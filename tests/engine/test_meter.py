"""The meter, with a clock that the test moves."""

from __future__ import annotations

import types

import pytest

from plsc.engine.training import meter as module
from plsc.engine.training.meter import Meter


def test_waiting_for_data_is_a_share_of_the_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def batches():
        for number in range(3):
            now[0] += 2.0  # until the batch is there
            yield number

    meter = Meter(types.SimpleNamespace(global_batch=10, last=5))
    for number in meter.timed(batches()):
        now[0] += 6.0  # the step
        meter.add(float(number))
    assert meter.data_wait() == pytest.approx(6 / 24) and meter.images_per_second() == pytest.approx(30 / 24)
    now[0] += 8.0
    meter.pause(8.0)  # verifying
    assert meter.data_wait() == pytest.approx(6 / 24) and meter.mean_loss() == 1.0
    meter.restart()
    now[0] += 1.0
    assert meter.data_wait() == 0.0
