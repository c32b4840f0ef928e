"""The end of the window of plsc.rows.history in whole runs, with windows short enough to end often."""

from __future__ import annotations

import glob

import numpy as np
import pytest
from safetensors.numpy import load_file

from plsc import Entry
from plsc.checkpoint import ReadOptions, read_manifest, read_rows
from plsc.rows import history as row_history
from tests.dist.training_cases import Linear


@pytest.fixture
def train(tmp_path, monkeypatch):
    def run(name, window, steps, start="", **options):
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
        for key, value in options.items():
            entry.set(key, value)
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


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_a_run_that_becomes_lazy_makes_up_for_what_its_rows_have_missed(train, tmp_path, optimizer):
    """A checkpoint in the middle of an exact run, resumed as lazy: rows that wait are brought up to date when they are
    read, and stay as they are then; the lazy run leaves none that wait."""
    chosen = {"optimizer.name": optimizer, "lr": 0.01}
    train("exact", 4096, 9, **chosen, save_period=8)
    start = str(tmp_path / "exact" / "checkpoints" / "step_00000008")
    found = read_manifest(start)
    assert found.row_history["steps"] == 8
    now, stored = (
        np.concatenate([rows for _, _, rows in read_rows(start, found, 0, 200, ReadOptions(["weight"], stored=kind))])
        for kind in (False, True)
    )
    _, shard = train("lazy", 4096, 10, start=start, **chosen, save_period=9, **{"class_optimizer.sparse": "lazy"})
    log = (tmp_path / "lazy" / "logs" / "rank_00000.log").read_text()
    assert "class_optimizer.sparse: lazy: a class that a step does not sample stays as it is" in log
    assert "trained with class_optimizer.sparse='exact', this run continues with 'lazy'" in log
    assert read_manifest(str(tmp_path / "lazy" / "checkpoints" / "step_00000009")).row_history is None
    # float32 where the reader computes in float64; two steps sample at most 28 of 200 rows
    near = 3e-7 * np.abs(now).max()
    still = (np.abs(shard["weight"] - now) <= near).all(axis=1)
    assert still.sum() >= 200 - 28 and not still.all()
    assert (np.abs(stored - now)[still] > 2 * near).any(axis=1).sum() > 20  # they had been waiting
