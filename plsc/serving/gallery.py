"""A gallery of embeddings, and search in it."""

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
BLOCK = 1 << 22  # similarities per block


@dataclass(frozen=True)
class Matches:
    """The k most similar gallery entries for M probes, best first; ties in the order of the gallery.

    index: int64 [M, k], rows of the gallery. cosine: float32 [M, k]. names: M lists of k, None without names.
    """

    index: np.ndarray
    cosine: np.ndarray
    names: list[list[str]] | None


class Gallery:
    """Embeddings [N, E] to search in, with optional names. They are normalized here and stored as float32.

    Raises DataError for a wrong shape, values that are not finite, or a wrong number of names.
    """

    def __init__(self, embeddings: np.ndarray, names: Sequence[str] | None = None):
        given = check_embeddings(embeddings, "gallery")
        if not len(given) or (names is not None and len(names) != len(given)):
            count = "no" if names is None else len(names)
            raise DataError(
                f"gallery: {len(given)} embeddings and {count} names; give at least one, and a name for each"
            )
        self.unit: np.ndarray = np.empty(given.shape, np.float32)
        for start in range(0, len(given), 4096):
            self.unit[start : start + 4096] = normalize(given[start : start + 4096])
        self.names = None if names is None else list(names)

    @classmethod
    def load(cls, directory: str) -> Gallery:
        """Load the features that predict() wrote, with the paths of the images as names. Raises DataError."""
        return cls(*read_predictions(directory))

    def __len__(self) -> int:
        return len(self.unit)

    def search(self, probes: np.ndarray, k: int = 1) -> Matches:
        """Find the k (at most N) most similar entries for each probe [M, E]. The cosine with a zero embedding is 0.

        Raises DataError for another embedding size, ConfigError for k < 1.
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
    """Cosines of all rows of a [M, E] with all rows of b [N, E], float32 [M, N]; 0 for a zero embedding."""
    a = check_embeddings(a, "embeddings")
    b = _check_size(b, a.shape[1])
    return (normalize(a) @ normalize(b).T).astype(np.float32)


def read_predictions(directory: str) -> tuple[np.ndarray, list[str]]:
    """Read the output of predict(): features [M, E], memory-mapped, and M paths. Raises DataError."""
    file = os.path.join(directory, FEATURES)
    try:
        features = read_features(file)
        paths = read_paths(os.path.join(directory, TABLE))
    except (OSError, ValueError, EOFError, KeyError, csv.Error) as error:
        where = getattr(error, "filename", None) or file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DataError(f"{where}: {reason}; give a directory that predict() wrote") from None
    if len(features) != len(paths):
        raise DataError(f"{file}: {len(features)} features, but {TABLE} in the same directory has {len(paths)} paths")
    return features, paths


def read_features(file: str) -> np.ndarray:
    """Memory-map an .npy file of predict(), float32 [M, E]. Raises OSError, ValueError.

    It is opened by safe_open, which numpy.load with mmap_mode would bypass.
    """
    with safe_open.open_bytes(file, safe_open.TENSORS) as opened:
        if np.lib.format.read_magic(opened) != (1, 0):
            raise ValueError("is not an .npy file of version 1.0")
        try:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(opened)
        except Exception:  # the header is a Python literal, and a damaged one may raise anything
            raise ValueError("has a damaged header") from None
        if len(shape) != 2 or fortran or dtype != np.float32:
            raise ValueError(f"holds {dtype} {list(shape)}, features are float32 [M, E]")
        if not all(shape):  # nothing to map
            return np.zeros(shape, np.float32)
        return np.memmap(opened, dtype, "r", opened.tell(), shape)


def read_paths(table: str) -> list[str]:
    """Read the column "path" of the table of predict()."""
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
        raise DataError(f"embeddings: size {array.shape[1]}, but those to compare with have size {size}")
    return array
