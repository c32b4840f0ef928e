"""The names of the classes, in a file beside a list or container: `label.txt` and `label.classes.tsv`.

A line is `label<TAB>name<TAB>images`, ascending from label 0 on, below a header. The number of images may be empty.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plsc.data.label_counts import count_by_class
from plsc.errors import DataError
from plsc.files import safe_open
from plsc.files.atomic import write_bytes

ENDING = ".classes.tsv"
_HEADER = "label\tname\timages"
_UNKNOWN = -1
_LONGEST_COUNT = 18  # digits


@dataclass(frozen=True)
class ClassTable:
    """names: by label. images: int64, of each class; -1 where the table does not tell."""

    path: str
    names: list[str]
    images: np.ndarray

    def notes(self, place: str, labels: np.ndarray) -> list[str]:
        """Log lines: where the names are from, and whether the table fits the labels of all images. place: the data in
        messages."""
        known = np.flatnonzero(self.images != _UNKNOWN)
        found = count_by_class(labels, len(self.names))
        other = known[found[known] != self.images[known]]
        lines = [f"{place}: the names of the classes are those of {self.path}"]
        if len(other):
            label = int(other[0])
            lines.append(
                f"{self.path}: says another number of images than there are for {len(other):,} of {len(known):,} "
                f"classes, such as {self.images[label]:,} for class {label}, which has {found[label]:,}: if it belongs "
                "to other data, the names are wrong; remove it then"
            )
        return lines


def table_of(file: str) -> str:
    """The path of the table of a list or container."""
    return os.path.splitext(file)[0] + ENDING


def write_class_table(path: str, names: Sequence[str], images: Sequence[int]) -> None:
    """Write a table atomically. names, images: of each label. Raises DataError as ``check_names``, and OSError."""
    check_names(names)
    lines = [f"{label}\t{name}\t{count}\n" for label, (name, count) in enumerate(zip(names, images))]
    write_bytes(path, "".join([_HEADER + "\n", *lines]).encode())


def check_names(names: Sequence[str]) -> None:
    """Raise DataError for a name that cannot be in a table."""
    for name in names:
        if not name or len(f"x{name}x".splitlines()) > 1 or "\t" in name or not _is_whole(name):
            raise DataError(
                f"class name {ascii(name):.100}: is empty, or has a tab, a line end or half a character; rename its "
                "folder"
            )


def read_class_table(path: str, num_classes: int) -> ClassTable:
    """Read a table. Raises DataError that names the file and the line, also for more than num_classes names."""
    names: list[str] = []
    images: list[int] = []
    try:
        with safe_open.open_text(path, safe_open.CLASS_NAMES, "utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip("\r\n").split("\t")
                if number == 1 and fields == _HEADER.split("\t"):
                    continue
                if len(fields) != 3 or fields[0] != str(len(names)) or not fields[1] or not _is_count(fields[2]):
                    raise DataError(
                        f"{path}:{number}: {line[:80]!r} is not {len(names)}<TAB>name<TAB>images, the next of the "
                        "names of the classes; correct it, or remove the file if it does not belong to the data"
                    )
                names.append(fields[1])
                images.append(int(fields[2]) if fields[2] else _UNKNOWN)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise DataError(f"{path}: the names of the classes cannot be read: {reason}") from None
    if not 1 <= len(names) <= num_classes:
        larger = f"set classifier.num_classes: {len(names)}, " if names else ""
        raise DataError(
            f"{path}: has {len(names)} names for {num_classes} classes; {larger}correct it, or remove the file if it "
            "does not belong to the data"
        )
    return ClassTable(path, names, np.array(images, np.int64))


def _is_count(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) <= _LONGEST_COUNT)


def _is_whole(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
