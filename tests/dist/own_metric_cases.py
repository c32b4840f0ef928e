"""A run with a user's metric on each rank (see test_own_metric.py)."""

from __future__ import annotations

import os

import numpy as np

from plsc import Entry
from tests.dist.tiny_run import TinyNet, make_entry


def train(env, payload: dict) -> dict:
    """Train and verify with the settings of the page, then judge the last checkpoint. payload: cwd, page."""
    os.chdir(payload["cwd"])
    page = {key: value for key, value in payload["page"].items() if key != "data"}
    page["data.val_targets"] = payload["page"]["data"]["val_targets"]
    run = {"train_steps": 4, "test_period": 2, "save_period": 2, "test_batch_size": 7, "data.dataset_dir": "."}
    entry = make_entry("run", {**run, **page})
    entry.test_dataset = None
    result = entry.train()
    used = _using(entry, "judged")
    tested = used.test(json_file="judged.json", html_file="judged.html")
    return {
        "trained": result.verification.metrics, "auc": {name: one.auc for name, one in result.verification.items()},
        "tested": tested.metrics, "text": str(result),
        "features": [_features(entry, folder) for folder in ("faces", "mirrored")] if env.world_size == 1 else None,
    }  # fmt: skip


def _using(trained: Entry, directory: str, **more) -> Entry:
    entry = Entry(config={**trained.config, "checkpoint_dir": "run", "model_save_dir": directory, **more})
    entry.set_model(TinyNet())
    return entry


def _features(trained: Entry, folder: str) -> np.ndarray:
    return np.asarray(_using(trained, f"predicted_{folder}", predict={"images": folder}).predict().features)


def wrong(env, payload: dict) -> list[str]:
    """What each of the wrong metrics says of itself. payload: cwd, plugin, names."""
    os.chdir(payload["cwd"])
    said = []
    for name in payload["names"]:
        options = {"plugins": [payload["plugin"]], "metrics": ["verification", name], "data.dataset_dir": ".",
                   "data.val_targets": ["faces/"], "train_steps": 4, "test_period": 2}  # fmt: skip
        entry = make_entry(f"wrong_{name}", options)
        entry.test_dataset = None
        try:
            entry.train()
            said.append("")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return said
