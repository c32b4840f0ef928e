"""What test_remote.py runs on every rank."""

from __future__ import annotations

from plsc import Entry
from plsc.errors import PlscError


def settings(run_dir, steps, **changes):
    return {
        "seed": 5, "device": "cpu", "model_save_dir": run_dir, "train_steps": steps, "log_period": 1, "lr": 1.0,
        "train_batch_size": 4, "with_test": False, "resume": "auto",
        "data": {"dataset": "synthetic", "train_image_num": 16, "num_workers": 1},
        "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, 16, 16], "embedding_size": 16},
        "classifier": {"num_classes": 41, "scale": 16.0}, **changes,
    }  # fmt: skip


def life(env, payload):
    """Train with copies, go on elsewhere from the address, export; returns the directory of the export."""
    root, url = payload
    save = {"remote": {"save_url": url}}
    Entry(config=settings(f"{root}/first", 3, **save)).train()
    Entry(config=settings(f"{root}/second", 4, checkpoint_dir=url)).train()
    return Entry(config=settings(f"{root}/third", 1, checkpoint_dir=url, **save)).convert_for_prediction()


def wrong_destination(env, payload):
    """The error of a run whose results could not be copied."""
    try:
        Entry(config=settings(payload, 1, remote={"save_url": "s3://no-such-bucket/x"})).train()
    except PlscError as error:
        return str(error)
