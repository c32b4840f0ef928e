"""Loaders of verification pairs: from a `.bin`, a list of pairs of image files, or a folder of identities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from plsc.errors import DataError
from plsc.evaluation.bin_file import PairSet, load_bin
from plsc.evaluation.folders import find_identities
from plsc.evaluation.output_files import whole_file
from plsc.evaluation.pairs import choose_pairs, max_pairs
from plsc.evaluation.verification import FOLDS
from plsc.files import safe_open

FOLDER_PAIRS = 6000  # as many as LFW has; a smaller folder gives fewer
FOLDER_SEED = 0


class ImageFiles(Sequence):
    """A sequence of the bytes of image files, read on access. locations: their names in messages."""

    def __init__(self, paths: Sequence[str], locations: Sequence[str]):
        self._paths, self._locations = paths, locations

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # without slices
        """Read a file. Raises DataError that names it."""
        try:
            return safe_open.read_bytes(self._paths[index], safe_open.IMAGE)
        except OSError as error:
            raise DataError(f"{self.location(index)}: cannot be read: {error.strerror or error}") from error

    def path(self, index: int) -> str:
        """The path of a file."""
        return self._paths[index]

    def name(self, index: int) -> str:
        """The file's name without its directory, which may differ between machines."""
        return os.path.basename(self._paths[index])

    def select(self, which: Sequence[int] | np.ndarray) -> ImageFiles:
        """Those of the numbers ``which``, in that order."""
        return ImageFiles([self._paths[i] for i in which], [self._locations[i] for i in which])

    def location(self, index: int) -> str:
        return f"{self._locations[index]}: image {printable(self._paths[index])}"


def load_pairs(path: str | os.PathLike[str], name: str) -> PairSet:
    """The pairs of a directory (`load_folder`), a file that ends in .txt (`load_pair_list`) or another (`load_bin`)."""
    path = Path(path)
    if path.is_dir():
        return load_folder(path, name)
    return load_pair_list(path, name) if path.suffix == ".txt" else replace(load_bin(path), name=name)


def image_location(pairs: Any, index: int) -> str:
    """The name of an image of a PairSet or IdentitySet in messages: its file if it has one, else set and number."""
    files = pairs.images
    return files.location(index) if isinstance(files, ImageFiles) else f"{pairs.name}, image {index}"


def load_pair_list(path: str | os.PathLike[str], name: str) -> PairSet:
    """Read a list with one `path_a<TAB>path_b<TAB>0|1` per line (1: same identity), paths relative to its directory.

    UTF-8; blank lines are ignored. Memory: the paths; images are read on access.

    Raises DataError that names the first bad line and the number of bad lines: wrong fields, missing files. Also for a
    list with fewer pairs than folds, or without pairs of one kind.
    """
    home, paths, locations, same, bad = Path(path).parent, [], [], [], []
    for number, line in enumerate(read_lines(path), 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        fields = line.split("\t")
        location = f"{os.path.basename(path)}:{number}"
        if len(fields) != 3 or not fields[0] or not fields[1] or fields[2] not in ("0", "1"):
            bad.append(f"{location}: {printable(line)}; expected path_a<TAB>path_b<TAB>0 or 1")
            continue
        files = [os.path.join(home, field) for field in fields[:2]]
        bad += [f"{location}: image {printable(file)} does not exist" for file in files if not os.path.isfile(file)]
        paths += files
        locations += [location, location]
        same.append(fields[2] == "1")
    if bad:
        raise DataError(f"pair list {os.fspath(path)}: {len(bad)} problem(s), the first: {bad[0]}")
    if len(same) < FOLDS or all(same) or not any(same):
        raise DataError(
            f"pair list {os.fspath(path)}: {sum(same)} same and {len(same) - sum(same)} different pairs; at least "
            f"{FOLDS} pairs and one of each kind are needed"
        )
    return PairSet(name, ImageFiles(paths, locations), np.array(same))


def save_pair_list(path: str | os.PathLike[str], images: Sequence[str], issame: Sequence[bool]) -> None:
    """Write a list for `load_pair_list`. The write is atomic. images: 2P paths; issame: P flags.

    Raises DataError for a path that contains a tab or a line end, and if the file cannot be written.
    """
    home = os.path.dirname(os.path.abspath(path))
    names = [os.path.relpath(image, home) for image in images]
    for name in names:
        if any(mark in name for mark in "\t\r\n"):
            raise DataError(f"pair list {os.fspath(path)}: {printable(name)} has a tab or a line end; rename it")
    lines = [f"{a}\t{b}\t{int(same)}\n" for a, b, same in zip(names[::2], names[1::2], issame)]
    with whole_file(path, "pair list") as file:
        file.write("".join(lines).encode("utf-8", "surrogateescape"))


def load_folder(path: str | os.PathLike[str], name: str) -> PairSet:
    """Draw FOLDER_PAIRS pairs, or as many as possible, half of them "same", from a folder of identities.

    They are drawn by `choose_pairs` with FOLDS folds and FOLDER_SEED, so they depend only on the numbers of images.

    Raises DataError for a folder without identities, or too small for a pair of each kind in every fold.
    """
    found = find_identities(path)
    num_pairs = min(FOLDER_PAIRS, max_pairs(found.sizes, FOLDS))
    if not num_pairs:
        raise DataError(
            f"{os.fspath(path)}: {len(found.paths)} images of {len(found.names)} identities; at least {FOLDS} pairs "
            f"of one identity and {FOLDS} of two are needed"
        )
    images, issame = choose_pairs(found.sizes, num_pairs, FOLDS, FOLDER_SEED)
    paths = [found.paths[index] for index in images.reshape(-1)]
    return PairSet(name, ImageFiles(paths, [name] * len(paths)), issame)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the lines of a list, including line ends. Raises DataError for a file that cannot be read."""
    try:
        with safe_open.open_text(path, safe_open.LIST, "utf-8-sig", "surrogateescape", "\n") as file:
            return file.readlines()
    except OSError as error:
        raise DataError(f"pair list {os.fspath(path)}: cannot be read: {error.strerror or error}") from error


def printable(text: str) -> str:
    """Quote a text for a message: on one line, at most 200 characters."""
    shown = repr(os.fsencode(text).decode("utf-8", "backslashreplace"))
    return shown if len(shown) <= 200 else f"{shown[:197]}..."
