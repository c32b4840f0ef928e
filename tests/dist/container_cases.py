"""Runs that differ in nothing but what holds the images (see test_containers.py)."""

from __future__ import annotations

import json
from pathlib import Path

from plsc import Entry
from tests.dist.tiny_run import TinyNet

STEPS, SAVED = 7, 4


def train(env, payload) -> dict:
    """{container: {"straight": losses, "manifest": ..., "resumed": losses behind step SAVED, of some}}."""
    found = {}
    for number, (name, data) in enumerate(payload["data"].items()):
        straight, resumed = Path(payload["cwd"]) / f"{name}_straight", Path(payload["cwd"]) / f"{name}_resumed"
        workers = number % 3
        run(env, straight, {**data, "num_workers": workers})
        checkpoint = straight / "checkpoints" / f"step_{SAVED:08d}"
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        found[name] = {"straight": losses(straight), "manifest": manifest}
        if name in payload["resumed"]:
            run(env, resumed, {**data, "num_workers": 2 - workers}, str(checkpoint))
            found[name]["resumed"] = losses(resumed)
    return found


def run(env, directory: Path, data: dict, checkpoint: str = "") -> None:
    entry = Entry(config={
        "seed": 5, "device": "cpu", "num_threads": 1, "with_test": False, "model_save_dir": str(directory),
        "train_steps": STEPS, "train_batch_size": 8 // env.world_size, "log_period": 1, "save_period": SAVED,
        "lr": 0.5, "lr_reference_batch": 8, "lr_schedule": {"boundaries": []}, "checkpoint_dir": checkpoint,
        "memory_check": False, "model": {"image_shape": [3, 16, 16], "embedding_size": 8},
        "classifier": {"num_classes": None, "scale": 8.0}, "data": data,
    })  # fmt: skip
    entry.set_model(TinyNet(plain=True))
    entry.train()


def losses(directory: Path) -> dict[int, float]:
    """{step: loss}."""
    lines = [json.loads(line) for line in (directory / "scalars.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
