"""A model of another project: the model of PLSC for it, and an independent way to compute its embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from plsc.errors import CheckpointError, DataError
from plsc.files import safe_open
from plsc.weights import onnx_graph
from plsc.weights.centres import ArrayRows, RankFiles, Rows
from plsc.weights.convert import Converted, convert
from plsc.weights.kinds import KINDS, Kind
from plsc.weights.names import ONNX
from plsc.weights.onnx_net import from_graph, run_onnx
from plsc.weights.onnx_sequence import from_sequence, is_sequence
from plsc.weights.source import read_source


@dataclass(frozen=True)
class InputOptions:
    """How images enter the model, where the user sets it; None for the project's default. image_shape: [C, H, W]."""

    channels: str | None = None
    mean: float | None = None
    std: float | None = None
    epsilon: float | None = None
    image_shape: list[int] | None = None


@dataclass(frozen=True)
class ForeignModel:
    """A model of another project.

    embed: uint8 RGB [B, H, W, C] -> [B, E] by its own graph or a NumPy implementation; reference: which of the two.
    defaults: the settings that are not in the file. unused: names of other tensors in it. rows: its class centres.
    """

    path: str
    kind: str
    converted: Converted
    embed: Callable[[np.ndarray], np.ndarray]
    reference: str
    defaults: str
    unused: list[str] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    rows: Rows | None = None


def open_model(path: str, kind: str | None, options: InputOptions) -> ForeignModel:
    """Read a file of weights. kind: a key of KINDS, None to detect it. Raises CheckpointError that names the file."""
    if kind == ONNX or (kind is None and _first_byte(path) == onnx_graph.MAGIC):
        return _open_onnx(path, options)
    source = read_source(path, KINDS[kind] if kind else None)
    known: Kind = source.kind.with_options(options.channels, options.mean, options.std, options.epsilon)
    source = source.with_kind(known)
    rows: Rows | None = RankFiles.find(path)
    if rows is None and source.centres is not None:
        rows = ArrayRows(source.centres)
    converted = convert(source, options.image_shape)
    size = converted.settings["embedding_size"]
    if rows is not None and rows.shape[1] != size:
        raise CheckpointError(f"{path}: its class centres are {list(rows.shape)}, its embedding has {size} numbers")
    return ForeignModel(
        path, known.name, converted,
        lambda pixels: known.forward(source.arrays, known.input.prepare(pixels), known.epsilon),
        f"the NumPy implementation of {known.name}'s network", known.describe(), source.unused, source.epoch,
        source.step, rows,
    )  # fmt: skip


def _first_byte(path: str) -> bytes:
    try:
        with safe_open.open_bytes(path, safe_open.TENSORS) as file:
            return file.read(1)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None


def _open_onnx(path: str, options: InputOptions) -> ForeignModel:
    if options.epsilon is not None:
        raise CheckpointError(f"{path}: an ONNX file contains the epsilon of batch norm; leave out --bn-epsilon")

    def adapt(kind: Kind) -> Kind:
        return kind.with_options(options.channels, options.mean, options.std, None)

    try:
        graph = onnx_graph.read_graph(path)
        if is_sequence(graph):
            converted, kind, outputs = from_sequence(path, graph, adapt, options.image_shape)
        else:
            converted, kind, outputs = from_graph(graph, adapt, options.image_shape)
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    return ForeignModel(
        path, ONNX, converted, lambda pixels: run_onnx(path, outputs, kind.input.prepare(pixels)),
        "its own graph in ONNX Runtime", f"{kind.name}: {kind.input.describe()}",
    )  # fmt: skip
