"""A net of others, whatever its file is: our model for it, and what it computes by a reading of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from plsc.errors import CheckpointError, DataError
from plsc.files import safe_open
from plsc.weights import onnx_graph
from plsc.weights.centres import ArrayRows, RankFiles, Rows
from plsc.weights.convert import Converted, convert
from plsc.weights.kinds import ARCFACE, KINDS, Kind
from plsc.weights.names import ONNX
from plsc.weights.onnx_net import from_graph, run_onnx
from plsc.weights.source import read_source


@dataclass(frozen=True)
class Said:
    """What the user says of a net; None for what its project does by default. image_shape: [C, H, W]."""

    channels: str | None = None
    mean: float | None = None
    std: float | None = None
    epsilon: float | None = None
    image_shape: list[int] | None = None


@dataclass(frozen=True)
class ForeignNet:
    """A net of others.

    embed: uint8 RGB [B, H, W, C] -> [B, E], by their own graph or a formula; by_what says which. assumed: what of the
    net is not in its file. rows: the classes, where it has them.
    """

    path: str
    kind: str
    converted: Converted
    embed: Callable[[np.ndarray], np.ndarray]
    by_what: str
    assumed: str
    left_out: list[str] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    rows: Rows | None = None


def open_net(path: str, kind: str | None, said: Said) -> ForeignNet:
    """Read a file of weights. kind: a key of KINDS, None to find it out. Raises CheckpointError that names the file."""
    if kind == ONNX or (kind is None and _begins(path) == onnx_graph.MAGIC):
        return _open_onnx(path, said)
    source = read_source(path, KINDS[kind] if kind else None)
    known: Kind = source.kind.changed(said.channels, said.mean, said.std, said.epsilon)
    source = source.of_kind(known)
    rows: Rows | None = RankFiles.beside(path)
    if rows is None and source.centres is not None:
        rows = ArrayRows(source.centres)
    converted = convert(source, said.image_shape)
    size = converted.settings["embedding_size"]
    if rows is not None and rows.shape[1] != size:
        raise CheckpointError(f"{path}: its classes are {list(rows.shape)}, its embedding has {size} numbers")
    return ForeignNet(
        path, known.name, converted, lambda pixels: known.forward(source.arrays, known.input.of(pixels), known.epsilon),
        f"the formula of {known.name}'s net", known.said(), source.left_out, source.epoch, source.step, rows,
    )  # fmt: skip


def _begins(path: str) -> bytes:
    try:
        with safe_open.open_bytes(path, safe_open.TENSORS) as file:
            return file.read(1)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None


def _open_onnx(path: str, said: Said) -> ForeignNet:
    kind = ARCFACE.changed(said.channels, said.mean, said.std, None)
    if said.epsilon is not None:
        raise CheckpointError(f"{path}: an ONNX file says what batch norm adds to variances; leave out --bn-epsilon")
    try:
        converted, output = from_graph(onnx_graph.read_graph(path), kind, said.image_shape)
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    return ForeignNet(
        path, ONNX, converted, lambda pixels: run_onnx(path, output, kind.input.of(pixels)),
        "its own graph in ONNX Runtime", f"insightface's nets: {kind.input.said()}",
    )  # fmt: skip
