"""Measure the peak memory of verification: python tools/measure_verification.py DIRECTORY

Makes three sets of the size of lfw, cfp_fp and agedb (12,000, 14,000 and 12,000 JPEG images, 112x112) in DIRECTORY and
verifies them with a very small model, so that the memory is that of Paddle, the sets and the batches.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time

import numpy as np
from PIL import Image

from plsc import Entry
from plsc.evaluation.bin_file import save_bin
from plsc.models import BaseModel
from plsc.parallel.excepthook import install_excepthook

SETS = {"lfw": 6000, "cfp_fp": 7000, "agedb_30": 6000}  # number of pairs, as in the published sets


class Means(BaseModel):
    """The means of 16x16 squares, and a fully connected layer."""

    def __init__(self, embedding_size: int):
        self.embedding_size = embedding_size

    def build_network(self, input, label, is_train=True):
        import paddle

        squares = paddle.nn.AvgPool2D(16)(input)
        return paddle.nn.Linear(3 * 7 * 7, self.embedding_size)(paddle.nn.Flatten()(squares))


def make_sets(directory: str) -> None:
    """Write sets of images of a pattern and noise, about 8 KB each: 500 images, repeated as separate byte strings."""
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(500):
        pattern = rng.integers(0, 256, (14, 14, 3)).repeat(8, axis=0).repeat(8, axis=1)
        pixels = np.clip(pattern + rng.normal(0, 12, pattern.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
        encoded.append(buffer.getvalue())
    for name, pairs in SETS.items():
        # pickle would store one bytes object only once
        images = [bytes(bytearray(encoded[i])) for i in rng.integers(0, len(encoded), 2 * pairs)]
        save_bin(os.path.join(directory, f"{name}.bin"), images, np.arange(pairs) % 600 < 300)


def peak() -> float:
    """Peak memory of this process in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(arguments: list[str] | None = None) -> None:
    install_excepthook()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", help="directory of the sets and the model")
    parser.add_argument("--judge", action="store_true", help="verify existing sets only")
    options = parser.parse_args(arguments)
    run = os.path.join(options.directory, "run")
    if not options.judge:
        os.makedirs(options.directory, exist_ok=True)
        make_sets(options.directory)
    entry = Entry(config={
        "model_save_dir": run, "model": {"embedding_size": 512, "image_shape": [3, 112, 112]},
        "data": {"dataset": "synthetic", "train_image_num": 16, "num_workers": 0, "dataset_dir": options.directory,
                 "val_targets": list(SETS)},
        "classifier": {"num_classes": 8}, "train_batch_size": 8, "train_steps": 1, "with_test": False, "seed": 1,
    })  # fmt: skip
    entry.set_model(Means(512))
    if not options.judge:
        entry.train()
        print(f"sets written; next: python tools/measure_verification.py --judge {options.directory}")
        return
    files = sum(os.path.getsize(os.path.join(options.directory, f"{name}.bin")) for name in SETS)
    entry.set_checkpoint_dir(run)
    before, started = peak(), time.monotonic()
    entry.test()
    seconds = time.monotonic() - started
    print(f"{files / 1e6:,.0f} MB of images, {seconds:,.0f} s; peak {peak():,.0f} MB, {before:,.0f} MB before it")


if __name__ == "__main__":
    main()
