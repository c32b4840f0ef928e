"""A run with everything that the pages "add a ..." add (see test_extensions.py)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from plsc import Entry
from plsc.registry import MODELS


def train(env, payload) -> dict:
    """What this rank can tell of it."""
    os.chdir(payload["cwd"])
    sys.path.insert(0, payload["cwd"])
    entry = Entry(config={
        "plugins": ["their_package.tiny_net", "my_schedule.py", "tar_source.py", "brightness.py"],
        "seed": 5, "device": "cpu", "num_threads": 1, "with_test": False, "model_save_dir": "output",
        "train_steps": 6, "train_batch_size": 8 // env.world_size, "log_period": 1,
        "lr": 0.5, "lr_reference_batch": 8, "use_onednn": False,
        "lr_schedule": {"kind": "exponential", "warmup_steps": 2, "options": {"final": 0.1}},
        "model": {"image_shape": [3, 16, 16], "embedding_size": 8, "base_width": 4},
        "classifier": {"num_classes": 12, "scale": 8.0},
        "data": {"dataset": "class_tar", "dataset_dir": "data", "options": {"file": "train.tar"}, "num_workers": 2,
                 "augmentations": ["flip", {"brightness": {"most": 0.3}}]},
    })  # fmt: skip
    entry.set_model_name("TinyNet")
    entry.set("model.options", {"depth": 2, "batch_norm": False})
    result = entry.train()
    made = MODELS.find("TinyNet")
    lines = [json.loads(line) for line in (Path("output") / "scalars.jsonl").read_text().splitlines()]
    manifest = json.loads((Path(result.checkpoint) / "manifest.json").read_text())
    used = use(entry) if env.world_size == 1 else None
    return {
        "used": used,
        "model": f"{made.__module__}.{made.__qualname__}",
        "loss": [line["loss"] for line in lines], "lr": [line["lr"] for line in lines],
        "manifest": manifest["config"], "data": manifest["data"],
    }  # fmt: skip


def use(trained: Entry) -> dict:
    """What the model gives without a setting of its own: options come from the checkpoint."""
    import numpy as np
    from PIL import Image

    os.mkdir("images")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{number}.png")
    entry = Entry(config={
        "plugins": trained.config["plugins"], "checkpoint_dir": "output", "model_save_dir": "used",
        "predict": {"images": "images"}, "device": "cpu", "num_threads": 1,
    })  # fmt: skip
    features = np.asarray(entry.predict().features)
    return {"features": list(features.shape), "exported": sorted(os.listdir(entry.convert_for_prediction()))}
