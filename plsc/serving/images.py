"""Finds the images of a folder or a list."""

from __future__ import annotations

import os
import re

from plsc.errors import DataError
from plsc.evaluation.folders import SUFFIXES
from plsc.files import safe_open

_LABEL = re.compile(r"[ \t]+[+-]?[0-9]+$")


def find_images(source: str) -> tuple[list[str], int]:
    """Find the images of a folder or a list: (paths, number of skipped files). Raises DataError if there are none.

    A folder is searched recursively, in the order of the paths, for names with an image suffix. A list has one path per
    line, relative to its directory; a label may follow after a tab or a space.
    """
    if os.path.isdir(source):
        paths, others = _list_folder(source)
    else:
        paths, others = _read_list(source), 0
    if not paths:
        raise DataError(f"{source}: has no images ({others:,} other files); names must end in {', '.join(SUFFIXES)}")
    return paths, others


def _list_folder(folder: str) -> tuple[list[str], int]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}")

    files = [os.path.join(where, name) for where, _, names in os.walk(folder, onerror=refuse) for name in names]
    paths = [path for path in files if path.lower().endswith(SUFFIXES)]
    return sorted(paths, key=lambda path: path.split(os.sep)), len(files) - len(paths)


def _read_list(source: str) -> list[str]:
    try:
        with safe_open.open_text(source, safe_open.LIST, "utf-8-sig", "surrogateescape", "\n") as file:
            lines = [line.strip("\r\n") for line in file]
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}; give a folder of images or a list of their paths") from None
    root = os.path.dirname(source)
    return [os.path.join(root, _path(line)) for line in lines if line.strip()]


def _path(line: str) -> str:
    """The text before the last tab, or before an integer at the end, or the whole line."""
    return line.rpartition("\t")[0].strip() if "\t" in line.strip() else _LABEL.sub("", line.strip())
