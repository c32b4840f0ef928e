"""`plsc import` of other projects' weights: read, held against a second reading, written as a checkpoint of ours."""

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
from plsc.weights.foreign import ForeignNet
from plsc.weights.source import MOST_NAMED

PIXEL_STD = 127.5  # the default of data.pixel_std; what a net needs beside it, its options do


@dataclass(frozen=True)
class Imported:
    """directory: of the checkpoint; notes: what the user should know."""

    directory: str
    notes: list[str]


def import_net(net: ForeignNet, run_dir: str) -> Imported:
    """Write a net, and its classes where it has them, under ``run_dir``/checkpoints.

    Raises CheckpointError, also where our net computes anything else than ``net.embed``, or where there are checkpoints
    in ``run_dir``; then nothing is written.
    """
    if checkpoint.latest(run_dir) is not None:
        raise CheckpointError(f"--to={run_dir!r}: holds checkpoints; give another directory, nothing was written")
    distance = _prove(net)
    arrays = dict(net.converted.arrays)
    if net.rows is not None:
        trained = {name: array for name, array in arrays.items() if not name.endswith(("_mean", "_variance"))}
        arrays.update({f"velocity.{name}": np.zeros_like(array) for name, array in trained.items()})
        arrays["classifier.step"] = np.array([net.step], np.int64)
    with exclusive_run_dir(run_dir, "--to"):
        directory = save_shards(run_dir, net.step, arrays, shards_of(net.rows), _meta(net, distance))
    return Imported(directory, _notes(net, distance))


def _prove(net: ForeignNet) -> float:
    """The distance between our net and theirs, on pictures of random pixels."""
    pixels = equality.random_pixels(net.converted.settings["image_shape"])
    images = equality.net_input(pixels, PIXEL_STD)
    found = equality.our_features(net.path, net.converted.settings, net.converted.arrays, images)
    return equality.require_equal(net.path, net.by_what, found, net.embed(pixels))


def _meta(net: ForeignNet, distance: float) -> dict[str, Any]:
    settings = net.converted.settings
    config: dict[str, Any] = {"model": settings}
    if net.rows is not None:
        config["classifier"] = {"num_classes": net.rows.shape[0]}
    return {
        "paddle_version": paddle.__version__, "num_classes": 1 if net.rows is None else net.rows.shape[0],
        "embedding_size": settings["embedding_size"], "epoch": net.epoch, "position": {"samples": 0}, "config": config,
        "random_states": {}, "lr_state": {},
        "extra": {"imported": {"model": settings["name"], "from": net.kind, "distance": distance}},
    }  # fmt: skip


def _notes(net: ForeignNet, distance: float) -> list[str]:
    model = net.converted.settings
    shape = " x ".join(map(str, model["image_shape"]))
    notes = [
        f"{model['name']}, base_width {model['base_width']}, embedding_size {model['embedding_size']}, images {shape}; "
        f"model.options: {model['options']}",
        f"not in the file, so the default of {net.assumed}; see --channels, --mean, --std, --bn-epsilon",
        f"our net's embeddings of {equality.IMAGES} random images are those of {net.by_what}, to {distance:.0e} of "
        "their length",
    ]
    if net.rows is None:
        notes.append("no classes: go on with init_from: backbone and init_checkpoint")
    else:
        notes.append(f"{net.rows.shape[0]} classes; all momentum begins at zero, the position in the data is not known")
    if net.left_out:
        more = ", ..." if len(net.left_out) > MOST_NAMED else ""
        named = ", ".join(ascii(name)[1:-1][:60] for name in net.left_out[:MOST_NAMED])
        notes.append(f"{len(net.left_out)} tensors of the file are no part of the net: {named}{more}")
    return notes
