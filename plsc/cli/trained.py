"""A trained model on the command line: the settings that it was trained with, and features of images by it."""

from __future__ import annotations

import os

import numpy as np

from plsc import checkpoint
from plsc.config import Config
from plsc.engine.inference.settings import usable_settings
from plsc.entry import Entry
from plsc.errors import ConfigError
from plsc.serving import is_exported
from plsc.serving.gallery import FEATURES, read_predictions


def embed(source: str, checkpoint_dir: str | None, output: str | None) -> tuple[np.ndarray, list[str]]:
    """(features [M, E], their paths) of what `plsc predict` wrote into ``source``, or of a folder or list of images.

    The images go through the model in ``checkpoint_dir``; ``output``/predictions then holds what predict writes.
    Raises DataError, and ConfigError for images without a model or without an output.
    """
    if os.path.isfile(os.path.join(source, FEATURES)):
        return read_predictions(source)
    if not checkpoint_dir or not output:
        raise ConfigError(f"{source}: has no {FEATURES}; for images give --checkpoint and --output, too")
    config = stored_config(checkpoint_dir)
    config.update({"checkpoint_dir": checkpoint_dir, "model_save_dir": output, "predict": {"images": source}}, "plsc")
    prediction = Entry(config=config).predict()
    return prediction.features, prediction.paths


def stored_config(path: str) -> Config:
    """What the checkpoint was trained with; the defaults for an exported model, which says itself what it needs.

    Only the settings of model, classes, images and device count here; how it was trained does not.
    """
    if is_exported(path):
        return Config()
    resolved = checkpoint.resolve(path)
    stored = usable_settings(resolved, checkpoint.read_manifest(resolved).config)
    keys = ("model", "classifier", "data", "device", "num_threads", "test_batch_size")
    try:
        return Config.from_dict({key: stored[key] for key in keys if key in stored})
    except ConfigError as error:
        raise ConfigError(f"{resolved}: holds settings that this PLSC does not take ({error}); use -c") from None
