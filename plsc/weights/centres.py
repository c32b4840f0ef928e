"""Class centres of others, as shards of ours: those of arcface_torch's ranks, or one matrix of all classes.

arcface_torch (partial_fc_v2.py): rank r of N holds C // N + (r < C % N) classes, from C // N * r + min(r, C % N) on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from plsc.checkpoint import TensorSpec
from plsc.errors import CheckpointError, ConfigError, DataError
from plsc.files.torch_file import Tensor, TorchFile
from plsc.parallel.shards import class_range
from plsc.weights.momentum import class_momentum

HOME, WEIGHT = "state_dict_softmax_fc", "weight"
_FILE = re.compile(r"checkpoint_gpu_(\d{1,5})\.pt")
BLOCK_ROWS = 65536


class Rows(Protocol):
    """All classes in order."""

    @property
    def shape(self) -> tuple[int, int]:
        """[C, E]."""

    @property
    def files(self) -> int:
        """In how many files they are."""

    def blocks(self, first: int, last: int) -> Iterator[np.ndarray]:
        """float32 [n, E] blocks of the classes [first, last), in order."""

    def momentum_blocks(self, first: int, last: int) -> Iterator[np.ndarray]:
        """float32 [n, E] blocks of their momentum; zeros where there is none."""

    @property
    def has_momentum(self) -> bool:
        """Whether some momentum is known."""


@dataclass(frozen=True)
class ArrayRows:
    """Classes that are in memory."""

    array: np.ndarray
    files = 1
    has_momentum = False

    @property
    def shape(self) -> tuple[int, int]:
        """[C, E]."""
        return self.array.shape  # type: ignore[return-value]

    def blocks(self, first: int, last: int) -> Iterator[np.ndarray]:
        """See Rows."""
        for row in range(first, last, BLOCK_ROWS):
            yield np.ascontiguousarray(self.array[row : min(last, row + BLOCK_ROWS)], np.float32)

    def momentum_blocks(self, first: int, last: int) -> Iterator[np.ndarray]:
        """See Rows."""
        for row in range(first, last, BLOCK_ROWS):
            yield np.zeros((min(BLOCK_ROWS, last - row), self.array.shape[1]), np.float32)


@dataclass(frozen=True)
class RankFiles:
    """checkpoint_gpu_0.pt to checkpoint_gpu_{N-1}.pt of one directory; starts: the first class of each, and C."""

    paths: tuple[str, ...]
    starts: tuple[int, ...]
    embedding_size: int
    has_momentum: bool = False  # in all files

    @property
    def files(self) -> int:
        """See Rows."""
        return len(self.paths)

    @classmethod
    def find(cls, path: str) -> RankFiles | None:
        """Those that belong to one of them; None where ``path`` is none. Raises CheckpointError for a missing one."""
        folder, name = os.path.split(path)
        if not _FILE.fullmatch(name):
            return None
        ranks = sorted(int(match[1]) for match in map(_FILE.fullmatch, os.listdir(folder or os.curdir)) if match)
        if ranks != list(range(len(ranks))):
            raise CheckpointError(
                f"{folder or os.curdir}: the classes are in checkpoint_gpu_0.pt to checkpoint_gpu_{ranks[-1]}.pt, a "
                f"file of each rank; found only those of {str(ranks)[:80]}"
            )
        paths = tuple(os.path.join(folder, f"checkpoint_gpu_{rank}.pt") for rank in ranks)
        told = [_read(one, lambda tensor, momentum: (tensor.shape, momentum is not None)) for one in paths]
        shapes = [shape for shape, _ in told]
        classes = sum(shape[0] for shape in shapes)
        for rank, shape in enumerate(shapes):
            size = classes // len(paths) + (rank < classes % len(paths))
            if shape != (size, shapes[0][1]):
                raise CheckpointError(
                    f"{paths[rank]}: its classes are {list(shape)}; rank {rank} of {len(paths)} holds "
                    f"{[size, shapes[0][1]]} of {classes} classes: the files are not of one run"
                )
        starts = tuple(int(start) for start in np.cumsum([0, *(shape[0] for shape in shapes)]))
        return cls(paths, starts, shapes[0][1], all(momentum for _, momentum in told))

    @property
    def shape(self) -> tuple[int, int]:
        """[C, E]."""
        return self.starts[-1], self.embedding_size

    def blocks(self, first: int, last: int) -> Iterator[np.ndarray]:
        """See Rows. Reads the classes of one file at a time."""
        for path, low, high in self._parts(first, last):
            yield from ArrayRows(_read(path, lambda tensor, momentum: tensor.read())).blocks(low, high)

    def momentum_blocks(self, first: int, last: int) -> Iterator[np.ndarray]:
        """See Rows."""
        for path, low, high in self._parts(first, last):
            array = _read(path, lambda tensor, momentum: momentum.read()) if self.has_momentum else None
            if array is None:
                yield np.zeros((high - low, self.embedding_size), np.float32)
            elif not np.isfinite(array).all():
                raise CheckpointError(f"{path}: the momentum of its classes holds numbers that are not finite")
            else:
                yield from ArrayRows(array).blocks(low, high)

    def _parts(self, first: int, last: int) -> Iterator[tuple[str, int, int]]:
        """(file, first row in it, row after the last) for the classes [first, last)."""
        for path, start, end in zip(self.paths, self.starts, self.starts[1:]):
            low, high = max(first, start), min(last, end)
            if low < high:
                yield path, low - start, high - start


def _read(path: str, use):
    """``use`` of the tensors of a rank's classes and of their momentum, None without it. Raises CheckpointError that
    names the file."""
    try:
        with TorchFile(path) as file:
            home = file.value.get(HOME) if isinstance(file.value, dict) else None
            tensor = home.get(WEIGHT) if isinstance(home, dict) else None
            if not isinstance(tensor, Tensor) or not tensor.is_float or len(tensor.shape) != 2 or not tensor.shape[1]:
                raise DataError(f"holds no classes: {HOME}.{WEIGHT} [classes, embedding] of floats is missing")
            return use(tensor, class_momentum(file.value, tensor.shape))
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None


class CentreShard:
    """The classes [first, last) as a shard of ours (a ShardSource)."""

    def __init__(self, rows: Rows, first: int, last: int) -> None:
        self._rows, self._first, self._last = rows, first, last
        self._shape = (last - first, rows.shape[1])

    def tensors(self) -> list[TensorSpec]:
        """As ShardSource has it."""
        return [TensorSpec(name, "F32", self._shape) for name in ("weight", "velocity")]

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """As ShardSource has it."""
        for name, blocks in (("weight", self._rows.blocks), ("velocity", self._rows.momentum_blocks)):
            at = 0
            for block in blocks(self._first, self._last):
                yield name, at, block
                at += len(block)


def shards_of(rows: Rows | None) -> list[CentreShard]:
    """As many shards as there were files, or the most below that our rule for classes allows; none of no classes."""
    if rows is None:
        return []
    for count in range(rows.files, 0, -1):
        try:
            ranges = [class_range(rows.shape[0], rank, count) for rank in range(count)]
        except ConfigError:  # the last rank would have none
            continue
        return [CentreShard(rows, first, last) for first, last in ranges]
    raise CheckpointError(f"num_classes {rows.shape[0]}: there are no classes to keep")
