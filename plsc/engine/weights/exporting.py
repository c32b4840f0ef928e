"""`plsc export --to torch`: the backbone of a checkpoint as a file of weights for arcface_torch, held against it."""

from __future__ import annotations

import os

from plsc import checkpoint
from plsc.config import Config
from plsc.engine.weights import equality
from plsc.errors import CheckpointError, ExportError
from plsc.files.torch_writer import write_state_dict
from plsc.weights.kinds import ARCFACE
from plsc.weights.torch_names import arcface_state_dict

FILE = "model.pt"


def export_torch(config: Config) -> tuple[str, list[str]]:
    """Write the model in ``checkpoint_dir`` to ``model_save_dir``/model.pt; returns the file and notes for the user.

    Before, the embeddings of arcface_torch's network with these weights are compared with
    PLSC's. Raises ExportError, CheckpointError; then nothing is written.
    """
    path = checkpoint.resolve(config.checkpoint_dir)
    manifest = checkpoint.read_manifest(path)
    stored = checkpoint.read_weights(path, manifest, config.ema.weights)
    model = config.to_dict()["model"]
    arrays = arcface_state_dict(path, model, stored)
    pixels = equality.random_pixels(model["image_shape"])
    kind = ARCFACE.with_options(None, None, config.data.pixel_std, None)
    theirs = kind.forward(arrays, kind.input.prepare(pixels), kind.epsilon)
    backbone = {name: array for name, array in stored.items() if name.startswith("backbone.")}
    ours = equality.our_features(path, model, backbone, equality.model_input(pixels, config.data.pixel_std))
    try:
        distance = equality.require_equal(path, "the NumPy implementation of arcface_torch's network", theirs, ours)
        os.makedirs(config.model_save_dir, exist_ok=True)
        file = os.path.join(config.model_save_dir, FILE)
        write_state_dict(file, arrays)
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    except OSError as error:
        raise ExportError(f"{error.filename or config.model_save_dir}: cannot be written: {error.strerror}") from None
    return file, _notes(config, distance)


def _notes(config: Config, distance: float) -> list[str]:
    model = config.model
    notes = [f"with these weights, embeddings of arcface_torch's network differ by {distance:.0e} of their length"]
    if model.base_width != 64 or list(model.image_shape) != [3, 112, 112]:
        notes.append(
            f"base_width {model.base_width}, image_shape {list(model.image_shape)}: arcface_torch's class has 64 and "
            "3 x 112 x 112, so it needs a model of these sizes"
        )
    if config.data.pixel_std != ARCFACE.input.std:
        notes.append(
            f"its images enter as (pixels - 127.5) / {config.data.pixel_std:g}, arcface_torch divides by 127.5"
        )
    return notes
