"""Runs through Entry on every rank (see test_entry_runs.py), one after the other in the same processes."""

from __future__ import annotations

import os

import numpy as np
import paddle

from plsc import Entry
from plsc.models import BaseModel


def settings(**changes):
    config = {
        "seed": 5,
        "device": "cpu",
        "data": {"dataset": "synthetic", "train_image_num": 48, "num_workers": 1},
        "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, 16, 16], "embedding_size": 16},
        "classifier": {"num_classes": 41, "scale": 16.0},
        "with_test": False,
        "train_steps": 4,
        "log_period": 2,
        "memory_check": False,  # a sixth of what such a run takes
        "lr": 1.0,
    }
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return config


# What runs of two ranks are held against.
ON_ONE_RANK = ("linear", "linear by field", "linear data parallel", "wide")


VIT = {
    "model__name": "ViT-T",
    "model__base_width": 4,
    "model__options": {"depth": 2, "patch_size": 4, "drop_path": 0.5},
}


class Linear(BaseModel):
    """PLSC 0.1's form of build_network; no batch statistics, so that N ranks are one rank."""

    def build_network(self, input, label, is_train=True):
        return paddle.nn.Linear(768, 16)(paddle.flatten(input, 1))


class LinearByField(BaseModel):
    """PLSC 0.2's form."""

    def build_network(self, input, is_train=True):
        return paddle.nn.Linear(768, 16)(paddle.flatten(input.image, 1))


def pictures(count):
    """Every second pair of neighbours has one label."""
    rng = np.random.default_rng(3)
    return [(rng.standard_normal((3, 16, 16)).astype("float32"), i // 2 if i % 4 < 2 else i) for i in range(count)]


def run_all(env, payload):
    """{name: what the run gave} as this rank sees it. payload: cwd, few (true: only what one rank is needed for)."""
    os.chdir(payload["cwd"])
    batch = 12 // env.world_size
    results = {}

    def train(name, model=None, **changes):
        if payload["few"] and name not in ON_ONE_RANK:
            return
        entry = Entry(config=settings(train_batch_size=batch, test_batch_size=5, model_save_dir=name, **changes))
        if model is not None:
            entry.set_model(model)
        results[name] = entry.train()

    train("first", memory_check=True)
    train("again")
    train("other seed", seed=6)
    train("sampled", classifier__sample_ratio=0.5)
    train("sampled again", classifier__sample_ratio=0.5)
    train("linear", Linear())
    train("linear by field", LinearByField())
    train("linear data parallel", Linear(), classifier__model_parallel=False)
    train("nhwc", model__data_format="NHWC")
    train("mobile", model__name="MobileFaceNet", model__base_width=8)
    train("transformer", classifier__sample_ratio=0.5, **VIT)
    train("transformer again", classifier__sample_ratio=0.5, **VIT, model__recompute=True)
    train("two workers", Linear(), data__num_workers=2)
    # more rows than a block of the classifier has, on one rank and on each of two
    train("wide", Linear(), classifier__num_classes=9001)
    train("wide again", Linear(), classifier__num_classes=9001)
    train("wide data parallel", Linear(), classifier__num_classes=9001, classifier__model_parallel=False)
    wide = {"classifier__num_classes": 9001, "classifier__sample_ratio": 0.7}
    train("wide sampled", Linear(), **wide)
    train("wide sampled on", Linear(), **wide, train_steps=8, checkpoint_dir="wide sampled")
    train("wide sampled at once", Linear(), **wide, train_steps=8)
    half = {"classifier__num_classes": 9001, "classifier__storage": "bfloat16"}
    train("half", Linear(), **half)
    train("half on", Linear(), **half, train_steps=8, checkpoint_dir="half")
    train("half at once", Linear(), **half, train_steps=8)

    optimizer(results, batch)
    hooks(results, batch)
    if not payload["few"]:
        life(results, batch)
    return {name: plain(result) for name, result in results.items()}


def optimizer(results, batch):
    """The built-in momentum and the same optimizer given by the user."""
    for name, own in (("built in", None), ("own", paddle.optimizer.Momentum), ("adam", paddle.optimizer.Adam)):
        entry = Entry(config=settings(train_batch_size=batch, model_save_dir=name, lr_reference_batch=12))
        entry.set_lr(0.5)
        entry.set_model(Linear())
        if own is paddle.optimizer.Momentum:
            entry.set_optimizer(own(0.5, 0.9, weight_decay=paddle.regularizer.L2Decay(5e-4)))
        elif own is not None:
            entry.set_optimizer(own(0.01))
        results[name] = entry.train()


def hooks(results, batch):
    """train_dataset, train_reader and test_dataset of the user."""
    data = pictures(36)
    for name in ("train_dataset", "train_reader"):
        config = settings(train_batch_size=batch, model_save_dir=name, with_test=True, test_batch_size=5)
        entry = Entry(config=config)
        entry.set_train_image_num(None)
        entry.set_model(Linear())
        setattr(entry, name, data if name == "train_dataset" else lambda: iter(data))
        entry.test_dataset = pictures(40)
        results[name] = entry.train()
    entry = Entry(config=settings(train_batch_size=batch, model_save_dir="batched", with_test=True, test_batch_size=5))
    entry.set_train_image_num(36)
    entry.set_model(Linear())
    entry.train_reader = paddle.batch(lambda: iter(data), batch_size=7)  # as a PLSC 0.1 script has it
    entry.test_dataset = Drawing()
    results["batched"] = entry.train()


class Drawing:
    """Draws a label, and makes the picture of it."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        label = np.random.randint(3)
        image = np.full((3, 16, 16), 0.01, "float32")
        image[label] = 1.0
        return image, label


def life(results, batch):
    """train, then test, predict and convert from its checkpoint; train on from it."""
    entry = Entry(config=settings(train_batch_size=batch, model_save_dir="life", with_test=True, test_batch_size=3))
    entry.test_dataset = pictures(20)
    results["life"] = entry.train()
    entry.set_checkpoint_dir("life")
    results["life test"] = entry.test()
    results["life predict"] = entry.predict()
    results["life convert"] = entry.convert_for_prediction()
    entry.set_train_steps(8)
    entry.set_model_save_dir("life2")
    results["life on"] = entry.train()
    entry = Entry(config=settings(train_batch_size=batch, model_save_dir="life8", train_steps=8))
    results["life at once"] = entry.train()


def plain(result):
    """What can be sent to the test."""
    if isinstance(result, (str, np.ndarray)):
        return result
    if hasattr(result, "features"):
        return np.asarray(result.features)
    if isinstance(result, dict):
        return {name: value.accuracy for name, value in result.items()}
    accuracy = {name: value.accuracy for name, value in result.verification.items()}
    checkpoint = os.path.abspath(result.checkpoint)
    return {"loss": result.loss, "step": result.step, "checkpoint": checkpoint, "test": accuracy}


def resnet50(env, payload):
    """Entry as it comes: ResNet50 at 112x112, for a few steps."""
    os.chdir(payload)
    entry = Entry()
    assert (entry.config["model"]["name"], entry.config["model"]["image_shape"]) == ("ResNet50", [3, 112, 112])
    entry.set("data.dataset", "synthetic")
    entry.set_train_image_num(16)
    entry.set_class_num(1000)
    entry.set_train_batch_size(2)
    entry.set_train_steps(3)
    entry.set_with_test(False)
    entry.set_seed(0)
    entry.set_log_period(1)
    return plain(entry.train())
