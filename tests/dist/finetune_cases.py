"""Fine-tuning on folders of identities: some stay, some are gone, some are new (see test_finetuning.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from plsc import Predictor
from tests.dist.folder_cases import entry
from tests.dist.tiny_run import SHAPE

OLD = {name: number for number, name in enumerate("bear cat dog eel fox".split())}
NEW = {**{name: OLD[name] for name in ("fox", "cat", "dog")}, "ant": 7, "crow": 8, "yak": 9, "zebu": 10}
STILL = {"train_steps": 1, "lr": 1e-30, "weight_decay": 0.0, "save_async": False, "with_test": False}


def write_folders(root: Path, classes: dict[str, int]) -> None:
    """Three to six images of each class; ``classes``: {name: what they look like}."""
    for name, look in classes.items():
        (root / name).mkdir(parents=True)
        rng = np.random.default_rng(look)
        colour = rng.uniform(0, 255, 3)
        for number in range(3 + look % 4):
            pixels = np.clip(colour + rng.normal(0, 40, (*SHAPE[1:], 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def trained_on(env, payload: dict) -> str:
    """One run: payload holds run_dir, data (a folder) and the changed settings. Returns its result as text."""
    made = entry(payload["run_dir"], {"dataset_dir": payload["data"]}, env.world_size, **payload["changes"])
    return str(made.train())


def embedded(env, payload: dict) -> np.ndarray:
    """The embeddings of images, float32 [n, E], by an exported model of the run."""
    exported = entry(payload["run_dir"], {}, checkpoint_dir=payload["run"]).convert_for_prediction()
    with Predictor(exported) as predictor:
        return predictor.embed(payload["images"])
