"""Maps labels of old classes to new ones: a text file with `old_label<TAB>new_label` on each line, or by name or number
(``match_classes``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plsc.errors import DataError
from plsc.files import safe_open

_ADVICE = "say which class is which by label_map, a file of old_label<TAB>new_label"
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


@dataclass(frozen=True)
class Classes:
    """The classes of one side: their number, and their names by label, where they have them (``names`` may be shorter).
    ``place``: what they are of, for messages."""

    number: int
    names: Sequence[str]
    place: str


def match_classes(
    old: Classes, new: Classes, key: str = "init_from='classes'"
) -> tuple[np.ndarray, np.ndarray, str]:
    """(old [n], new [n]) int64, sorted by old, as ``read_label_map``; and how they were matched, for the log.

    Classes with the same name are the same, whatever their labels, if both sides have names; else those with the same
    label. ``key``: what asks for it, for messages. Raises DataError where that cannot be known: equal names on one
    side, no common name, or without names another number of classes.
    """
    if not (old.names and new.names):
        if old.number != new.number:
            raise DataError(
                f"{key}: {old.place} has {old.number:,} classes, {new.place} {new.number:,}, and without "
                f"names on both sides they cannot be matched; {_ADVICE}"
            )
        every = np.arange(old.number, dtype=np.int64)
        without = " and ".join(side.place for side in (old, new) if not side.names)
        return every, every, f"by number, as {without} has no names of classes"
    labels = [_labels_by_name(side, key) for side in (old, new)]
    pairs = [(label, labels[1][name]) for name, label in labels[0].items() if name in labels[1]]
    if not pairs:
        raise DataError(
            f"{key}: no class of {new.place} has a name that {old.place} has, such as "
            f"{old.names[0]!r:.80}; {_ADVICE}, or take none of its centres"
        )
    old_labels, new_labels = np.array(pairs, np.int64).T.copy()
    return old_labels, new_labels, "by name"


def _labels_by_name(side: Classes, key: str) -> dict[str, int]:
    found = {name: label for label, name in enumerate(side.names)}
    if len(found) < len(side.names):
        twice = next(name for label, name in enumerate(side.names) if found[name] != label)
        raise DataError(f"{key}: {side.place} has two classes named {twice!r:.80}; {_ADVICE}")
    return found


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
