"""A trained model on the command line: its stored settings, and features of images."""

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
    """(features [M, E], their paths) of a directory that `plsc predict` wrote, or of a folder or list of images.

    The model in ``checkpoint_dir`` embeds the images into ``output``/predictions. Raises DataError, and ConfigError for
    images without a model or an output.
    """
    if os.path.isfile(os.path.join(source, FEATURES)):
        return read_predictions(source)
    if not checkpoint_dir or not output:
        raise ConfigError(f"{source}: has no {FEATURES}; for images give --checkpoint and --output as well")
    config = stored_config(checkpoint_dir)
    config.update({"checkpoint_dir": checkpoint_dir, "model_save_dir": output, "predict": {"images": source}}, "plsc")
    prediction = Entry(config=config).predict()
    return prediction.features, prediction.paths


def stored_config(path: str) -> Config:
    """The settings that the checkpoint was trained with; the defaults for an exported model, which describes itself.

    Only settings of the model, the classes, the images and the device are returned.
    """
    if is_exported(path):
        return Config()
    resolved = checkpoint.resolve(path)
    stored = usable_settings(resolved, checkpoint.read_manifest(resolved).config)
    keys = ("model", "classifier", "data", "device", "num_threads", "test_batch_size")
    try:
        return Config.from_dict({key: stored[key] for key in keys if key in stored})
    except ConfigError as error:
        raise ConfigError(f"{resolved}: holds settings that this PLSC does not accept ({error}); use -c") from None
