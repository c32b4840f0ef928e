"""What lies in a directory of data, listed once, for the sources that may recognise it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from plsc.errors import DataError


@dataclass(frozen=True)
class Directory:
    """A directory as it was listed. path: as given. label_file: the setting ``data.label_file``.

    files, folders: the names in it, in the order of their bytes, without hidden ones (those that begin with a dot).
    A link counts as what it leads to.
    """

    path: str
    label_file: str
    files: tuple[str, ...]
    folders: tuple[str, ...]

    def first(self, *endings: str) -> str:
        """The first file whose name ends in one of these; "" where none does."""
        return next((name for name in self.files if name.endswith(endings)), "")


def list_directory(path: str | os.PathLike, label_file: str | os.PathLike = "") -> Directory:
    """Raises DataError for a directory that is not there or cannot be read."""
    try:
        with os.scandir(os.fspath(path)) as entries:
            shown = [(entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"data.dataset_dir={os.fspath(path)!r}: cannot be read: {error.strerror or error}; set it to the directory "
            "of the data; for a first run without data set data.dataset: synthetic"
        ) from None
    shown.sort(key=lambda one: os.fsencode(one[0]))
    files = tuple(name for name, is_folder in shown if not is_folder)
    return Directory(os.fspath(path), os.fspath(label_file), files, tuple(name for name, yes in shown if yes))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False
