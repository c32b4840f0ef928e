"""The contents of a data directory, listed once, for sources to recognise it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from plsc.errors import DataError


@dataclass(frozen=True)
class Directory:
    """The contents of a directory. path: as given. label_file: the setting ``data.label_file``.

    files, folders: its names, sorted by bytes, without hidden ones (those that begin with a dot). Links are followed.
    """

    path: str
    label_file: str
    files: tuple[str, ...]
    folders: tuple[str, ...]

    def first(self, *endings: str) -> str:
        """The first file with one of these suffixes; "" if there is none."""
        return next((name for name in self.files if name.endswith(endings)), "")


def list_directory(path: str | os.PathLike, label_file: str | os.PathLike = "") -> Directory:
    """List a directory. Raises DataError if it does not exist or cannot be read."""
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
    except OSError:  # a link loop
        return False
