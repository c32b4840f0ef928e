"""Known images to look others up in."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.embeddings import check_embeddings, normalize
from plsc.files import safe_open

FEATURES, TABLE = "features.npy", "pictures.csv"
BLOCK = 1 << 22  # similarities held at a time


@dataclass(frozen=True)
class Matches:
    """The most similar entries of a gallery for M probes, best first; of equal ones the one that stands earlier.

    index int64 [M, k]: their rows. cosine float32 [M, k]. names: their names, M lists of k, if the gallery has names.
    """

    index: np.ndarray
    cosine: np.ndarray
    names: list[list[str]] | None


class Gallery:
    """Embeddings [N, E] of known images and, if given, their names. They are normalised here, held as float32.

    Raises DataError for a wrong shape, values that are not finite, or another number of names.
    """

    def __init__(self, embeddings: np.ndarray, names: Sequence[str] | None = None):
        given = check_embeddings(embeddings, "gallery")
        if not len(given) or (names is not None and len(names) != len(given)):
            count = "no" if names is None else len(names)
            raise DataError(f"gallery: {len(given)} embeddings and {count} names; give at least one, and a name each")
        self.unit: np.ndarray = np.empty(given.shape, np.float32)
        for start in range(0, len(given), 4096):
            self.unit[start : start + 4096] = normalize(given[start : start + 4096])
        self.names = None if names is None else list(names)

    @classmethod
    def load(cls, directory: str) -> Gallery:
        """What predict() wrote: its features, named by the paths of the images. Raises DataError."""
        return cls(*read_predictions(directory))

    def __len__(self) -> int:
        return len(self.unit)

    def search(self, probes: np.ndarray, k: int = 1) -> Matches:
        """The k (at most N) most similar entries for each of probes [M, E]. An embedding of zeros is like none: 0.

        Raises DataError for probes of another size, ConfigError for k < 1.
        """
        probes = _check_size(probes, self.unit.shape[1])
        if k < 1:
            raise ConfigError(f"k={k}: must be at least 1")
        k = min(k, len(self.unit))
        index, cosine = np.zeros((len(probes), k), np.int64), np.zeros((len(probes), k), np.float32)
        units: np.ndarray = normalize(probes).astype(np.float32)
        for rows, block in _similarity_blocks(units, self.unit):
            order = np.argsort(-block, axis=1, kind="stable")[:, :k]
            index[rows], cosine[rows] = order, np.take_along_axis(block, order, axis=1)
        names = None if self.names is None else [[self.names[i] for i in row] for row in index]
        return Matches(index, cosine, names)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of each of a [M, E] with each of b [N, E], float32 [M, N]; 0 with an embedding of zeros."""
    a = check_embeddings(a, "embeddings")
    b = _check_size(b, a.shape[1])
    return (normalize(a) @ normalize(b).T).astype(np.float32)


def read_predictions(directory: str) -> tuple[np.ndarray, list[str]]:
    """What predict() wrote: features [M, E], read from the file as they are used, and M paths. Raises DataError."""
    file = os.path.join(directory, FEATURES)
    try:
        features = read_features(file)
        paths = read_paths(os.path.join(directory, TABLE))
    except (OSError, ValueError, EOFError, KeyError, csv.Error) as error:
        where = getattr(error, "filename", None) or file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DataError(f"{where}: {reason}; give a directory that predict() wrote") from None
    if len(features) != len(paths):
        raise DataError(f"{file}: {len(features)} features, {TABLE} beside it has {len(paths)} paths")
    return features, paths


def read_features(file: str) -> np.ndarray:
    """The array of an .npy file that predict() wrote, float32 [M, E], read as it is used. Raises OSError, ValueError.

    As numpy.load with mmap_mode, which would open the file by itself.
    """
    with safe_open.open_bytes(file, safe_open.TENSORS) as opened:
        if np.lib.format.read_magic(opened) != (1, 0):
            raise ValueError("is no .npy file of version 1.0")
        try:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(opened)
        except Exception:  # it is Python's own syntax, and what is none raises many things
            raise ValueError("damaged at its head") from None
        if len(shape) != 2 or fortran or dtype != np.float32:
            raise ValueError(f"holds {dtype} {list(shape)}, features are float32 [M, E]")
        if not all(shape):  # nothing to map
            return np.zeros(shape, np.float32)
        return np.memmap(opened, dtype, "r", opened.tell(), shape)


def read_paths(table: str) -> list[str]:
    """The column "path" of a table that predict() wrote."""
    with safe_open.open_text(table, safe_open.LIST, "utf-8", "surrogateescape", "") as file:
        return [row["path"] for row in csv.DictReader(file)]


def _similarity_blocks(probes: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    step = max(1, BLOCK // len(gallery))
    for start in range(0, len(probes), step):
        rows = slice(start, min(start + step, len(probes)))
        yield rows, probes[rows] @ gallery.T


def _check_size(embeddings: np.ndarray, size: int) -> np.ndarray:
    array = check_embeddings(embeddings, "embeddings")
    if array.shape[1] != size:
        raise DataError(f"embeddings: have {array.shape[1]} numbers, those to compare with {size}")
    return array
