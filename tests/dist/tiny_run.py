"""A run that is small in everything and leaves nothing out: batch statistics, dropout, samples, verification."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from plsc import Entry
from plsc.models import BaseModel

SHAPE = [3, 16, 16]
IMAGES, CLASSES, EMBEDDING = 52, 37, 8


class TinyNet(BaseModel):
    """conv - BN (the stage ``stem``) - PReLU - dropout - fc; ``plain`` leaves batch statistics and dropout out."""

    def __init__(self, plain: bool = False):
        self.plain = plain

    def build_network(self, input, label, is_train=True):
        import paddle

        def apply(layer, value, training=is_train):
            layer.train() if training else layer.eval()
            return layer(value)

        with self.stage("stem", is_train) as training:
            x = apply(paddle.nn.Conv2D(SHAPE[0], 4, 3, stride=4), input, training)
            if not self.plain:
                x = apply(paddle.nn.BatchNorm2D(4), x, training)
        x = paddle.flatten(apply(paddle.nn.PReLU(), x), 1)
        if not self.plain:
            x = apply(paddle.nn.Dropout(0.3), x)
        return apply(paddle.nn.Linear(x.shape[1], EMBEDDING), x)


class Pictures:
    """``count`` made-up pictures; a class is a colour with noise."""

    def __init__(self, count: int, classes: int, salt: int = 0, noise: float = 0.3):
        rng = np.random.default_rng(salt)
        self.labels = rng.integers(0, classes, count)
        colours = rng.standard_normal((classes, 3, 1, 1))
        self.images = (colours[self.labels] + noise * rng.standard_normal((count, *SHAPE))).astype("float32")

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], np.int64(self.labels[index])


def make_entry(run_dir, options: dict | None = None, plain: bool = False, adam: float = 0.0) -> Entry:
    """An Entry with the tiny net and data; ``options`` are dotted keys; ``adam``: the first rate of a user's Adam."""
    entry = Entry()
    usual = {
        "seed": 11, "device": "cpu", "num_threads": 1, "model_save_dir": str(run_dir), "resume": "auto",
        "train_batch_size": 4, "test_batch_size": 4, "train_steps": 24, "save_period": 5, "test_period": 4,
        "log_period": 1, "lr": 6.0, "lr_schedule.boundaries": [17], "weight_decay": 1e-3,
        "model.image_shape": SHAPE, "model.embedding_size": EMBEDDING, "classifier.num_classes": CLASSES,
        "classifier.scale": 8.0, "classifier.sample_ratio": 0.3, "data.num_workers": 0,
        "memory_check": False,  # a sixth of what such a run takes
    }  # fmt: skip
    for key, value in {**usual, **(options or {})}.items():
        entry.set(key, value)
    entry.set_model(TinyNet(plain))
    entry.train_dataset = Pictures(IMAGES, entry.config["classifier"]["num_classes"])
    entry.test_dataset = Pictures(24, 3, salt=1, noise=4.0)
    if adam:
        import paddle

        paddle.enable_static()
        entry.set_optimizer(paddle.optimizer.Adam(paddle.optimizer.lr.ExponentialDecay(adam, 0.9)))
    return entry


def told(run_dir) -> dict:
    """{(step, kind, name): [every value that was told, once or again after a resumption]}."""
    found: dict = {}
    for line in (Path(run_dir) / "scalars.jsonl").read_text().splitlines():
        values = json.loads(line)
        names = ("accuracy", "auc", "xnorm") if "test" in values else ("loss", "lr")
        for name in names:
            found.setdefault((values["step"], values.get("test", "train"), name), []).append(values[name])
    return found


def manifest(run_dir, step: int) -> dict:
    return json.loads((Path(run_dir) / "checkpoints" / f"step_{step:08d}" / "manifest.json").read_text())
