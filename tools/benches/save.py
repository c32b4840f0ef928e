"""How long training stands still for a checkpoint, written beside it and written while it waits."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

HELP = "how long training stands still for a checkpoint, written beside it and written while it waits"
EMBEDDING = 512


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000])
    command.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.1])
    command.add_argument("--batch", type=int, default=64, help="images of a step")
    command.add_argument("--steps", type=int, default=5, help="steps before the checkpoint")


def cases(options: argparse.Namespace) -> list[dict]:
    return [
        {"classes": classes, "ratio": ratio, "batch": options.batch, "steps": options.steps, "save_async": save_async}
        for classes in options.classes
        for ratio in options.ratios
        for save_async in (True, False)
    ]


def run(case: dict) -> dict:
    """Seconds that training stands still for a checkpoint, and the size of the checkpoint."""
    from plsc import Entry

    with tempfile.TemporaryDirectory() as directory:
        entry = Entry(config={
            "data": {"dataset": "synthetic", "train_image_num": 4 * case["batch"], "num_workers": 0},
            "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, 16, 16], "embedding_size": EMBEDDING},
            "classifier": {"num_classes": case["classes"], "sample_ratio": case["ratio"]},
            "train_batch_size": case["batch"], "train_steps": case["steps"] + 1, "save_period": case["steps"],
            "save_async": case["save_async"], "with_test": False, "seed": 0, "num_threads": case["threads"],
            "model_save_dir": directory,
        })  # fmt: skip
        checkpoint = entry.train().checkpoint
        log = Path(directory, "logs", "rank_00000.log").read_text()
        line = r"paused for ([0-9.]+) s" if case["save_async"] else r"Save model to .*, ([0-9.]+) s"
        pauses = [float(text) for text in re.findall(line, log)]
        size = sum(file.stat().st_size for file in Path(checkpoint).iterdir())
    return {"seconds": min(pauses), "checkpoint_mb": round(size / 1e6, 1)}
