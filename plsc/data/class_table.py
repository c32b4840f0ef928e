"""The names of the classes of an image list, in a file beside it: `label.txt` and `label.classes.tsv`.

A line is `label<TAB>name<TAB>images`, ascending from label 0 on, below a header.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from plsc.errors import DataError
from plsc.files import safe_open
from plsc.files.atomic import write_bytes

ENDING = ".classes.tsv"
_HEADER = "label\tname\timages"


def table_of(label_file: str) -> str:
    """The path of the table of a list."""
    return os.path.splitext(label_file)[0] + ENDING


def write_class_table(path: str, names: Sequence[str], images: Sequence[int]) -> None:
    """Write a table atomically. names, images: of each label. Raises DataError as ``check_names``, and OSError."""
    check_names(names)
    lines = [f"{label}\t{name}\t{count}\n" for label, (name, count) in enumerate(zip(names, images))]
    write_bytes(path, "".join([_HEADER + "\n", *lines]).encode())


def check_names(names: Sequence[str]) -> None:
    """Raise DataError for a name that cannot be in a table."""
    for name in names:
        if not name or len(f"x{name}x".splitlines()) > 1 or "\t" in name:
            raise DataError(f"class name {name!r:.100}: is empty, or has a tab or a line end; rename its folder")


def read_class_table(path: str, num_classes: int) -> list[str]:
    """The names by label. Raises DataError that names the file and the line, also for more than num_classes names."""
    names: list[str] = []
    try:
        with safe_open.open_text(path, safe_open.CLASS_NAMES, "utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip("\r\n").split("\t")
                if number == 1 and fields == _HEADER.split("\t"):
                    continue
                if len(fields) != 3 or fields[0] != str(len(names)) or not fields[1]:
                    raise DataError(
                        f"{path}:{number}: {line[:80]!r} is not {len(names)}<TAB>name<TAB>images, the next of the "
                        "names of the classes; correct it, or remove the file if it does not belong to the list"
                    )
                names.append(fields[1])
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise DataError(f"{path}: the names of the classes cannot be read: {reason}") from None
    if not 1 <= len(names) <= num_classes:
        raise DataError(
            f"{path}: has {len(names)} names for {num_classes} classes; correct it, or remove the file if it does not "
            "belong to the list"
        )
    return names
