"""Finds the images of a folder of identities, in the same order on every machine.

A class is a folder directly in the root. Its images are all files below it with an image suffix (plsc.files.suffixes).
Names that begin with a dot, other files, files in the root, folders without images, links out of the root and link
loops are skipped and counted.
"""

from __future__ import annotations

import array
import os
from dataclasses import dataclass, field

import numpy as np

from plsc.data.label_list import MOST_CLASSES, printable
from plsc.errors import DataError
from plsc.files.suffixes import IMAGES

MOST_DEPTH = 16  # folders inside one another
_ENDINGS = tuple(ending.encode() for ending in IMAGES)


@dataclass(frozen=True)
class PathIndex:
    """Images by paths and labels, a plsc.data.record.LabelIndex.

    blob: all paths, concatenated. starts: int [n + 1], their positions. labels: int32 [n].
    """

    blob: bytes
    starts: np.ndarray
    labels: np.ndarray
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> bytes:
        """The path of an image, relative to the root."""
        return self.blob[int(self.starts[index]) : int(self.starts[index + 1])]

    def block(self, which: slice) -> tuple[bytes, np.ndarray, np.ndarray]:
        """(bytes, starts, lengths) of the paths of consecutive images."""
        starts = self.starts[which.start : which.stop + 1].astype(np.int64)
        return self.blob[starts[0] : starts[-1]], starts[:-1] - starts[0], np.diff(starts)


@dataclass
class Walk:
    """The result of a walk. names: sorted names of the classes. passed: {what: [count, example]} of skipped files.
    setting: what named the root, for messages."""

    root: bytes
    setting: str = "data.dataset_dir"
    names: list[bytes] = field(default_factory=list)
    blob: bytearray = field(default_factory=bytearray)
    lengths: array.array = field(default_factory=lambda: array.array("q"))
    sizes: array.array = field(default_factory=lambda: array.array("q"))
    passed: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def pass_over(self, what: str, path: bytes) -> None:
        """Count a skipped path."""
        count, example = self.passed.get(what, (0, path))
        self.passed[what] = count + 1, example

    def add(self, name: bytes, paths: list[bytes]) -> None:
        """Add a class and its images."""
        self.names.append(name)
        self.blob += b"".join(paths)
        self.lengths.extend(map(len, paths))
        self.sizes.append(len(paths))

    def notes(self) -> list[str]:
        """Log lines about skipped paths, one per kind."""
        return [f"passed over {count} {what}, such as {printable(path)}" for what, (count, path) in self.passed.items()]

    def index(self, num_classes: int) -> PathIndex:
        """The images, class by class."""
        dtype = np.uint32 if len(self.blob) < 2**32 else np.int64
        starts = np.zeros(len(self.lengths) + 1, dtype)
        np.cumsum(np.frombuffer(self.lengths, np.int64), out=starts[1:])
        labels = np.repeat(np.arange(len(self.names), dtype=np.int32), np.frombuffer(self.sizes, np.int64))
        return PathIndex(bytes(self.blob), starts, labels, num_classes)


def walk(root: bytes) -> Walk:
    """All images below ``root``. Raises DataError for a folder that cannot be read, and one that is nested too deeply.

    Lists each folder once; only links need an additional system call.
    """
    found, real = Walk(root), os.path.realpath(root)
    for entry in _sorted_entries(found, root):
        if _is_hidden(found, root, entry):
            continue
        if not _is_folder(entry):
            found.pass_over("file(s) beside the folders of the identities", entry.path)
        elif _leads_out(entry, real):
            found.pass_over("link(s) that lead out of the folder or in a circle", entry.path)
        else:
            paths = _images(found, entry.path, real, 1)
            if paths:
                prefix = len(os.path.join(root, b""))
                found.add(entry.name, sorted(path[prefix:] for path in paths))
            else:
                found.pass_over("folder(s) without images, which are no classes", entry.path)
        if len(found.names) > MOST_CLASSES:
            raise DataError(f"{printable(root)}: has more than {MOST_CLASSES} folders, the most classes there can be")
    return found


def walk_images(root: bytes) -> tuple[list[bytes], list[str]]:
    """(paths relative to ``root``, notes about what was skipped): all images in and below a folder, sorted by bytes.

    Raises DataError as ``walk``.
    """
    found, prefix = Walk(root, "images"), len(os.path.join(root, b""))
    paths = sorted(path[prefix:] for path in _images(found, root, os.path.realpath(root), 1))
    return paths, found.notes()


def _images(found: Walk, folder: bytes, real: bytes, depth: int) -> list[bytes]:
    """The paths of the images in a folder of an identity and below it."""
    if depth > MOST_DEPTH:
        raise DataError(f"{printable(folder)}: folders are nested more than {MOST_DEPTH} deep; move the images up")
    paths: list[bytes] = []
    for entry in _sorted_entries(found, folder):
        if _is_hidden(found, folder, entry):
            continue
        if entry.is_symlink() and _leads_out(entry, real):
            found.pass_over("link(s) that lead out of the folder or in a circle", entry.path)
        elif _is_folder(entry):
            paths += _images(found, entry.path, real, depth + 1)
        elif entry.name.lower().endswith(_ENDINGS) and _is_file(entry):
            paths.append(entry.path)
        else:
            found.pass_over("file(s) that are no images by their names or no files", entry.path)
    return paths


def _sorted_entries(found: Walk, folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{found.setting}: {printable(folder)} cannot be read: {reason}") from error


def _is_hidden(found: Walk, folder: bytes, entry: os.DirEntry[bytes]) -> bool:
    if entry.name.startswith(b"."):
        found.pass_over("hidden name(s), which begin with a dot", entry.path)
        return True
    return False


def _leads_out(entry: os.DirEntry[bytes], real: bytes) -> bool:
    """Whether a link leads out of the root, nowhere, or to a folder that contains it."""
    if not entry.is_symlink():
        return False
    target = os.path.realpath(entry.path)
    own = os.path.realpath(os.path.dirname(entry.path))
    inside = target.startswith(os.path.join(real, b""))
    return not inside or os.path.join(own, b"").startswith(os.path.join(target, b""))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
