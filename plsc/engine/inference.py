"""Test, predict and export: the backbone of a checkpoint in inference mode."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np
import paddle

from plsc import checkpoint, compat
from plsc.checkpoint import Manifest
from plsc.data import decode_image, normalise
from plsc.data.label_list import read_label_list
from plsc.engine.build import EvalProgram, build_eval
from plsc.engine.evaluate import Embedder, as_scalars, describe, verify_all
from plsc.engine.session import make_executor
from plsc.engine.start import Run
from plsc.errors import CheckpointError, DataError
from plsc.evaluation.verification import Verification

MEAN = 127.5


class Backbone:
    """The backbone of ``checkpoint_dir`` in variables of its own."""

    def __init__(self, run: Run, batch_size: int):
        config = run.config
        self.program: EvalProgram = build_eval(config, run.parts, run.env, batch_size)
        self.path, self.manifest = checkpoint.open_checkpoint(
            config.checkpoint_dir, run.group, embedding_size=self.program.feature.shape[1]
        )
        self.scope = paddle.static.Scope()
        self.executor = make_executor(run.env)
        with paddle.static.scope_guard(self.scope):
            self.executor.run(self.program.startup)
        self._load(run)

    def run(self, program, feed: dict, fetches: list) -> list[np.ndarray]:
        with paddle.static.scope_guard(self.scope):
            return self.executor.run(program, feed=feed, fetch_list=fetches)

    def _load(self, run: Run) -> None:
        stored = checkpoint.read_replicated(self.path, self.manifest)
        for name, value in compat.persistables(self.program.main).items():
            array = stored.get(name)
            if array is None or list(array.shape) != list(value.shape):
                found = "nothing" if array is None else list(array.shape)
                raise CheckpointError(
                    f"{self.path}: holds {found} for {name}, the model needs {list(value.shape)}; "
                    "set the section `model` as it was trained"
                )
            self.scope.find_var(name).get_tensor().set(array, compat.place(run.env.on_gpu))


def test(run: Run) -> dict[str, Verification]:
    """Verify the checkpoint on all sets."""
    backbone = Backbone(run, run.config.test_batch_size)
    embedder = Embedder(run.config, run.env, backbone.program, backbone.run)
    results = verify_all(run.config, run.parts, embedder)
    for name, result in results.items():
        run.journal.say(f"test: {describe(name, result)}")
        run.journal.scalars(backbone.manifest.step, {"test": name, **as_scalars(result)})
    return results


@dataclass(frozen=True)
class Prediction:
    """``features`` [M, E] float32 of the pictures ``paths``, in their order, and the files they were written to."""

    features: np.ndarray
    paths: list[str]
    features_file: str
    paths_file: str


def predict(run: Run) -> Prediction:
    """Embed the pictures of the list (the labels do not matter), or of ``test_dataset``."""
    backbone = Backbone(run, run.config.test_batch_size)
    embedder = Embedder(run.config, run.env, backbone.program, backbone.run)
    paths, read = _pictures(run)
    features, _ = embedder.embed(read, len(paths), flip=False)
    directory = os.path.join(os.path.abspath(run.config.model_save_dir), "predictions")
    files = os.path.join(directory, "features.npy"), os.path.join(directory, "paths.txt")
    if run.env.rank == 0:
        os.makedirs(directory, exist_ok=True)
        with open(files[0] + ".tmp", "wb") as file:
            np.save(file, features)
        with open(files[1] + ".tmp", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(path + "\n" for path in paths)
        for name in files:
            os.replace(name + ".tmp", name)
        run.journal.say(f"{len(paths)} features of {backbone.path} in {files[0]}, their pictures in {files[1]}")
    run.group.barrier("predicted")
    return Prediction(features, paths, *files)


def _pictures(run: Run):
    config, dataset = run.config, run.parts.test_dataset
    shape = list(config.model.image_shape)
    if dataset is not None:
        return [str(i) for i in range(len(dataset))], lambda i: _fit(np.asarray(dataset[i][0], np.float32), shape, i)
    root = config.data.dataset_dir
    labels = read_label_list(os.path.join(root, config.data.label_file), config.classifier.num_classes)
    paths = [os.fsdecode(labels.path(index)) for index in range(len(labels))]

    def read(index: int) -> np.ndarray:
        image = decode_image(os.path.join(root, paths[index]))
        return _fit(normalise(image, config.data.pixel_std), shape, paths[index])

    return paths, read


def _fit(image: np.ndarray, shape: list[int], name) -> np.ndarray:
    if list(image.shape) != shape:
        raise DataError(f"picture {name}: is {list(image.shape)}, must be model.image_shape {shape}")
    return image


def export(run: Run) -> str:
    """Write a Paddle inference model with a dynamic batch, and what its input must look like, beside it."""
    backbone = Backbone(run, -1)
    prefix = os.path.join(os.path.abspath(run.config.model_save_dir), "inference", "backbone")
    if run.env.rank == 0:
        os.makedirs(os.path.dirname(prefix), exist_ok=True)
        inputs = list(backbone.program.feeds.values())
        with paddle.static.scope_guard(backbone.scope):
            paddle.static.save_inference_model(
                prefix, inputs, [backbone.program.own_feature], backbone.executor, program=backbone.program.main
            )
        _describe(run, backbone.manifest, prefix)
        run.journal.say(f"inference model of {backbone.path} in {prefix}.*")
    run.group.barrier("exported")
    return prefix


def _describe(run: Run, manifest: Manifest, prefix: str) -> None:
    facts = {
        "image_shape": list(run.config.model.image_shape),
        "channels": "RGB",
        "pixel_mean": MEAN,
        "pixel_std": run.config.data.pixel_std,
        "embedding_size": manifest.embedding_size,
        "l2_normalised": False,
        "step": manifest.step,
        "paddle_version": paddle.__version__,
    }
    with open(prefix + ".facts.json.tmp", "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=2)
    os.replace(prefix + ".facts.json.tmp", prefix + ".facts.json")
