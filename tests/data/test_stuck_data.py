"""Data that never come: a run that was asked to stop ends all the same, and any run after stall_timeout."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from plsc.engine.run import stopping
from plsc.engine.run.stopping import DATA_SECONDS, DataTimeout
from plsc.errors import DataError
from tests.engine.test_memory_plan import BATCH, entry


@pytest.mark.parametrize("asked, timeout, ranks, waited, expected", [
    (0, 600, 1, 599, None),
    (0, 600, 1, 600, "no data for 600 s (stall_timeout=600"),
    (0, 600, 2, 1199, None),  # the other ranks name the late one first
    (0, 600, 2, 1200, "no data for 1200 s (stall_timeout=600"),
    (0, 0, 1, 1e9, None),
    (DATA_SECONDS, 0, 2, DATA_SECONDS, "the run was to stop"),
    (DATA_SECONDS - 1, 600, 1, 500, None),  # the data may come in time yet
    (500, 600, 1, DATA_SECONDS - 1, None),  # a save before took the time
])  # fmt: skip
def test_how_long_data_are_waited_for(asked, timeout, ranks, waited, expected):
    found = DataTimeout(SimpleNamespace(seconds=lambda: asked), timeout, ranks)(waited)
    assert found is None if expected is None else found.startswith(expected)


class Stuck:
    """The third batch never comes. ``stops``: once the second has been trained on the run is asked to stop."""

    def __init__(self, log, stops):
        self.log, self.stops, self.parent, self.count = log, stops, os.getpid(), 0

    def __len__(self):
        return 8 * BATCH

    def __getitem__(self, index):
        self.count += 1
        if self.count > 2 * BATCH and os.getpid() != self.parent:
            if self.stops:
                end = time.monotonic() + 120
                while "step 2/6" not in self.log.read_text() and time.monotonic() < end:
                    time.sleep(0.05)
                os.kill(self.parent, signal.SIGTERM)
            time.sleep(600)
        return np.zeros((3, 4, 4), np.float32), index % 8


@pytest.mark.parametrize("stops, timeout, message", [
    (False, 1.0, "no data for 1 s .stall_timeout=1;"),
    (True, 0.0, "the run was to stop, waited 1 s for it and ends unsaved"),
])  # fmt: skip
def test_a_run_whose_data_are_stuck_ends_with_the_batch(tmp_path, monkeypatch, stops, timeout, message):
    monkeypatch.setattr(stopping, "DATA_SECONDS", 1.0)
    made = entry(**{"data.dataset": "list", "data.num_workers": 1, "classifier.num_classes": 8, "train_steps": 6,
                    "log_period": 1, "stall_timeout": timeout, "model_save_dir": str(tmp_path)})  # fmt: skip
    made.train_dataset = Stuck(tmp_path / "logs" / "rank_00000.log", stops)
    with pytest.raises(DataError, match=rf"plsc-data-0 .* reading the batch of step 3 \(samples .*\): {message}"):
        made.train()
