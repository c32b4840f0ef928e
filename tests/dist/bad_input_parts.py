"""What a user hands over in the cases of bad_input_cases.py: pictures, lists, YAML files, nets, data sets."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image

from plsc.models import BaseModel

SIDE, CLASSES, PER_CLASS, EMBEDDING = 8, 8, 4, 4
NUM_IMAGES = CLASSES * PER_CLASS
HOT = 5  # the sample of OneHotSample that makes the loss overflow


def make_pictures(folder: Path) -> None:
    """32 pictures of 8 classes, and lists of them that are wrong in every way that a list can be."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for index in range(NUM_IMAGES):
        name = f"{index:02d}.jpg"
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / name)
        lines.append(f"{name}\t{index % CLASSES}")
    odd = list(lines)
    for place, name in enumerate(make_odd_pictures(folder, rng)):
        odd[place] = f"{name}\t{place}"
    whole = (folder / "07.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    Image.new("RGB", (SIDE + 1, SIDE)).save(folder / "wide.jpg")
    lists = {
        "label.txt": lines,
        "odd.txt": odd,
        "empty.txt": [],
        "no_label.txt": [*lines[:3], "03.jpg", *lines[4:]],
        "word.txt": [*lines[:3], "03.jpg\tcat", *lines[4:]],
        "negative.txt": [*lines[:3], "03.jpg\t-1", *lines[4:]],
        "range.txt": [*lines[:3], f"03.jpg\t{CLASSES}", *lines[4:]],
        "missing.txt": [*lines[:3], "gone.jpg\t3", *lines[4:]],
        "wide.txt": [f"wide.jpg\t{index % CLASSES}" for index in range(NUM_IMAGES)],
        "cut.txt": [*lines[:7], "cut.jpg\t7", *lines[8:]],
    }
    for name, content in lists.items():
        (folder / name).write_text("".join(line + "\n" for line in content))
    yaml = {
        "both": "train_epochs: 1\ntrain_steps: 2\n",
        "broken": "lr: 0.1\nmodel: [1, 2\n",
        "key": "lr: 0.1\nclasifier:\n  num_classes: 8\n",
        "kind": "lr: 0.1\ntrain_steps: many\n",
    }
    for name, text in yaml.items():
        (folder / f"{name}.yaml").write_text(text)


def make_odd_pictures(folder: Path, rng) -> list[str]:
    """CMYK, grey, 16-bit grey, palette, transparent, one bit: what is accepted beside RGB."""
    grey = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    images = {
        "cmyk.jpg": Image.new("CMYK", (SIDE, SIDE), (10, 200, 30, 40)),
        "grey.jpg": Image.fromarray(grey),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(grey).convert("P"),
        "clear.png": Image.new("RGBA", (SIDE, SIDE), (10, 200, 30, 40)),
        "bits.png": Image.new("1", (SIDE, SIDE), 1),
    }
    for name, image in images.items():
        image.save(folder / name)
    return list(images)


class Linear(BaseModel):
    """feature = flattened image @ weight + bias."""

    def build_network(self, input, label, is_train=True):
        import paddle

        return paddle.nn.Linear(int(np.prod(input.shape[1:])), EMBEDDING)(paddle.flatten(input, 1))


class Frozen(BaseModel):
    """Nothing to train in it, so there is nothing to sum over the ranks."""

    def build_network(self, input, label, is_train=True):
        import paddle

        return paddle.flatten(input, 1)[:, :EMBEDDING] * 1.0


class Raising(BaseModel):
    """A user's mistake in Python."""

    def build_network(self, input, label, is_train=True):
        return {}["no such layer"]


class Misfitting(BaseModel):
    """A user's mistake that Paddle finds, somewhere deep inside of it."""

    def build_network(self, input, label, is_train=True):
        import paddle

        return paddle.add(paddle.flatten(input, 1), paddle.ones([7]))


class OneHotSample:
    """Finite samples, one of which is so large that the loss is not."""

    def __len__(self):
        return NUM_IMAGES

    def __getitem__(self, index):
        image = np.full((3, SIDE, SIDE), 3e38 if index == HOT else 0.01 * index, np.float32)
        return image, index % CLASSES


class Slow:
    """Training that lasts until somebody ends it."""

    def __len__(self):
        return NUM_IMAGES

    def __getitem__(self, index):
        time.sleep(0.002)
        return np.full((3, SIDE, SIDE), 0.01 * index, np.float32), index % CLASSES


class RaisingSample(Slow):
    """A user's data set that fails, if it is told to."""

    def __init__(self, raises: bool = True):
        self.raises = raises

    def __getitem__(self, index):
        if self.raises:
            raise KeyError("no such sample")
        return super().__getitem__(index)
