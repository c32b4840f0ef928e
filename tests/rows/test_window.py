"""The end of the window of plsc.rows.history in whole runs, with windows short enough to end often."""

from __future__ import annotations

import glob

import numpy as np
import pytest
from safetensors.numpy import load_file

from plsc import Entry
from plsc.rows import history as row_history
from tests.dist.training_cases import Linear


@pytest.fixture
def train(tmp_path, monkeypatch):
    def run(name, window, steps, start=""):
        monkeypatch.setattr(row_history, "WINDOW_STEPS", window)
        entry = Entry(
            config={
                "seed": 3,
                "device": "cpu",
                "num_threads": 1,
                "model_save_dir": str(tmp_path / name),
                "checkpoint_dir": start,
                "data": {"dataset": "synthetic", "train_image_num": 60, "num_workers": 0},
                "model": {"image_shape": [3, 4, 4], "embedding_size": 8},
                "classifier": {"num_classes": 200, "scale": 8.0, "sample_ratio": 0.05},
                "with_test": False,
                "train_batch_size": 4,
                "lr": 0.05,
                "lr_reference_batch": 4,
                "weight_decay": 0.05,
                "train_steps": steps,
            }
        )
        entry.set_model(Linear(8))
        checkpoint = entry.train().checkpoint
        (shard,) = glob.glob(f"{checkpoint}/*shard*")
        return checkpoint, load_file(shard)

    return run


@pytest.mark.parametrize("window", [1, 2, 4])
def test_how_often_all_rows_are_brought_up_to_date_changes_no_number(train, window):
    _, whole = train("whole", 4096, 14)
    _, often = train("often", window, 14)
    stop, _ = train("begun", window, 7)  # inside a window of 2 or 4
    _, resumed = train("resumed", window, 14, start=stop)
    for name, value in whole.items():
        for other in (often, resumed):
            # up to 14 roundings of float32 where there was one, and what the training makes of them
            np.testing.assert_allclose(other[name], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)
