"""`plsc import` of other projects' weights: compared with an independent implementation, then written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc import checkpoint
from plsc.checkpoint.lock import exclusive_run_dir
from plsc.checkpoint.write import save_shards
from plsc.engine.weights import equality
from plsc.errors import CheckpointError
from plsc.weights.centres import shards_of
from plsc.weights.foreign import ForeignModel
from plsc.weights.source import MAX_NAMED

PIXEL_STD = 127.5  # the default of data.pixel_std; model.options turn it into the model's own input


@dataclass(frozen=True)
class Imported:
    """directory: of the checkpoint; notes: what the user should know."""

    directory: str
    notes: list[str]


def import_model(model: ForeignModel, run_dir: str) -> Imported:
    """Write a checkpoint with the weights, and the class centres if there are any, under ``run_dir``/checkpoints.

    Raises CheckpointError, also if the embeddings differ from those of ``model.embed``, or if ``run_dir`` holds
    checkpoints; then nothing is written.
    """
    if checkpoint.latest(run_dir) is not None:
        raise CheckpointError(f"--to={run_dir!r}: holds checkpoints; give another directory, nothing was written")
    distance = _compare(model)
    arrays = dict(model.converted.arrays)
    if model.rows is not None:
        trained = {name: array for name, array in arrays.items() if not name.endswith(("_mean", "_variance"))}
        known = model.converted.momentum or {}
        arrays.update({f"velocity.{name}": known.get(name, np.zeros_like(array)) for name, array in trained.items()})
        arrays["classifier.step"] = np.array([model.step], np.int64)
    with exclusive_run_dir(run_dir, "--to"):
        directory = save_shards(run_dir, model.step, arrays, shards_of(model.rows), _meta(model, distance))
    return Imported(directory, _notes(model, distance))


def _compare(model: ForeignModel) -> float:
    """The distance between PLSC's embeddings and the reference, on random images."""
    pixels = equality.random_pixels(model.converted.settings["image_shape"])
    images = equality.model_input(pixels, PIXEL_STD)
    ours = equality.OurModel(model.path, model.converted.settings, model.converted.arrays, images)
    return equality.require_equal(ours, model.reference, model.embed(pixels))


def _meta(model: ForeignModel, distance: float) -> dict[str, Any]:
    settings = model.converted.settings
    config: dict[str, Any] = {"model": settings}
    if model.rows is not None:
        config["classifier"] = {"num_classes": model.rows.shape[0]}
    return {
        "paddle_version": paddle.__version__, "num_classes": 1 if model.rows is None else model.rows.shape[0],
        "embedding_size": settings["embedding_size"], "epoch": model.epoch, "position": {"samples": 0},
        "config": config, "random_states": {}, "lr_state": {},
        "extra": {"imported": {"model": settings["name"], "from": model.kind, "distance": distance}},
    }  # fmt: skip


def _notes(model: ForeignModel, distance: float) -> list[str]:
    settings = model.converted.settings
    shape = " x ".join(map(str, settings["image_shape"]))
    notes = [
        f"{settings['name']}, base_width {settings['base_width']}, embedding_size {settings['embedding_size']}, "
        f"images {shape}; model.options: {settings['options']}",
        f"defaults of {model.defaults} (not in the file; set with --channels, --mean, --std, --bn-epsilon)",
        f"embeddings of {equality.IMAGES} random images differ by {distance:.0e} of their length from "
        f"{model.reference}{equality.remark(distance)}",
    ]
    if model.rows is None:
        notes.append("no class centres; to train, set init_from: backbone and init_checkpoint")
    else:
        told = [what for what, known in (("backbone", model.converted.momentum), ("classes", model.rows.has_momentum))
                if known]  # fmt: skip
        momentum = f"momentum of {' and '.join(told)} as in the file" if told else "momentum starts at zero"
        notes.append(f"{model.rows.shape[0]:,} classes; {momentum}; the position in the data is unknown")
    if model.converted.zeros:
        notes.append(f"{', '.join(model.converted.zeros)}: not in the file, only training uses it; it starts at zero")
    if model.unused:
        more = ", ..." if len(model.unused) > MAX_NAMED else ""
        named = ", ".join(ascii(name)[1:-1][:60] for name in model.unused[:MAX_NAMED])
        notes.append(f"{len(model.unused)} tensors of the file are not used: {named}{more}")
    return notes
