"""`plsc export --to torch`: the backbone of a checkpoint as a file of weights for arcface_torch or AdaFace.

Its embeddings are compared with theirs before anything is written.
"""

from __future__ import annotations

import os

from plsc import checkpoint
from plsc.config import Config
from plsc.engine.weights import equality
from plsc.engine.weights.description import describe_weights
from plsc.errors import CheckpointError, ExportError
from plsc.files.atomic import write_bytes
from plsc.files.hashes import file_entry
from plsc.files.torch_writer import write_state_dict
from plsc.serving.description import DESCRIPTION
from plsc.weights.kinds import ADAFACE, ARCFACE, Kind
from plsc.weights.torch_names import state_dict_of

FILE = "model.pt"
SHAPE, WIDTH = [3, 112, 112], 64  # of the classes of arcface_torch and AdaFace


def export_torch(config: Config) -> tuple[str, list[str]]:
    """Write the model in ``checkpoint_dir`` to ``model_save_dir``/model.pt, with its size and hash in plsc.json;
    returns the file and notes for the user.

    Files of these names are not replaced: they may be the original of an import. Before anything is written, the
    embeddings of their network with these weights are compared with PLSC's. Raises ExportError, CheckpointError.
    """
    file, description = (os.path.join(config.model_save_dir, name) for name in (FILE, DESCRIPTION))
    for one in (file, description):
        if os.path.lexists(one):
            raise ExportError(f"{one}: is there already; set another model_save_dir (--output), or remove it")
    path = checkpoint.resolve(config.checkpoint_dir)
    manifest = checkpoint.read_manifest(path)
    stored = checkpoint.read_weights(path, manifest, config.ema.weights)
    model = config.to_dict()["model"]
    kind, arrays = state_dict_of(path, model, stored)
    pixels = equality.random_pixels(model["image_shape"])
    kind = kind.with_options(None, None, config.data.pixel_std, None)
    theirs = kind.forward(arrays, kind.input.prepare(pixels), kind.epsilon)
    backbone = {name: array for name, array in stored.items() if name.startswith("backbone.")}
    ours = equality.OurModel(path, model, backbone, equality.model_input(pixels, config.data.pixel_std))
    try:
        what = f"the NumPy implementation of {kind.name}'s network"
        distance = equality.require_equal(ours, what, theirs)
        os.makedirs(config.model_save_dir, exist_ok=True)
        write_state_dict(file, arrays)
        facts = {"names": kind.name, "input": kind.input.describe()}
        about = describe_weights(manifest, model, {FILE: file_entry(file)}, **facts)
        write_bytes(description, about)
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    except OSError as error:
        raise ExportError(f"{error.filename or config.model_save_dir}: cannot be written: {error.strerror}") from None
    return file, _notes(config, kind, distance)


def _notes(config: Config, kind: Kind, distance: float) -> list[str]:
    model = config.model
    notes = [
        f"the names are those of {kind.name}, its images enter as {kind.input.describe()}",
        f"with these weights, embeddings of {kind.name}'s network differ by {distance:.0e} of their length"
        f"{equality.remark(distance)}",
    ]
    if model.base_width != WIDTH or list(model.image_shape) != SHAPE:
        notes.append(
            f"base_width {model.base_width}, image_shape {list(model.image_shape)}: {kind.name}'s class has {WIDTH} "
            f"and {' x '.join(map(str, SHAPE))}, so it needs a model of these sizes"
        )
    if config.data.pixel_std != ARCFACE.input.std:
        notes.append(f"by default {kind.name} divides by {ARCFACE.input.std:g}")
    if kind.name == ADAFACE.name:
        notes.append("AdaFace's files have the prefix model. and a state_dict in a dictionary; this is the state_dict")
    return notes
