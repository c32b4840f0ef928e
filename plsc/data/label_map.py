"""Maps labels of old classes to new ones: a text file with `old_label<TAB>new_label` on each line."""

from __future__ import annotations

import re

import numpy as np

from plsc.errors import DataError
from plsc.files import safe_open

_WHOLE_NUMBER = re.compile(r"\s*[0-9]{1,18}\s*")  # what fits into int64


def read_label_map(path: str, old_classes: int, new_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read (old [n], new [n]) int64, sorted by old. Blank lines are ignored; labels of each side must be unique.

    Raises DataError that names the file and the line.
    """
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    try:
        with safe_open.open_text(path, safe_open.LIST) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    old, new = _pair(f"{path}:{number}", line, old_classes, new_classes)
                    if old in pairs or new in taken:
                        side = f"old label {old}" if old in pairs else f"new label {new}"
                        raise DataError(f"{path}:{number}: {side} is there twice; keep one of the lines")
                    pairs[old] = new
                    taken.add(new)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise DataError(f"label_map={path!r}: {reason}; give a text file of old_label<TAB>new_label") from None
    if not pairs:
        raise DataError(f"label_map={path!r}: has no classes; each line is old_label<TAB>new_label")
    labels = sorted(pairs)
    return np.array(labels, np.int64), np.array([pairs[label] for label in labels], np.int64)


def _pair(where: str, line: str, old_classes: int, new_classes: int) -> tuple[int, int]:
    words = line.rstrip("\r\n").split("\t")
    if len(words) != 2 or not all(_WHOLE_NUMBER.fullmatch(word) for word in words):
        raise DataError(f"{where}: {line.strip()[:60]!r} is not old_label<TAB>new_label, two whole numbers")
    old, new = int(words[0]), int(words[1])
    for label, classes, what in ((old, old_classes, "old"), (new, new_classes, "new")):
        if label >= classes:
            raise DataError(
                f"{where}: {what} label {label}: must be in [0, {classes}), as there are {classes:,} classes"
            )
    return old, new
