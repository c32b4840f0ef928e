"""The names of the classes, by label, in a file beside a checkpoint's tensors or an exported model.

JSON: a list of texts, one a line. A file of another maker is read without trust: bounded, hashed, checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from plsc.files import plain_json, safe_open
from plsc.files.hashes import FileEntry, hash_bytes

CLASS_NAMES = "class_names.json"
MOST_CHARACTERS = 4096  # of a name


def to_bytes(names: Sequence[str], num_classes: int) -> bytes:
    """The contents of the file. Raises ValueError for what are no names of so many classes."""
    problem = _problem(names, num_classes)
    if problem:
        raise ValueError(f"class_names: {problem}")
    lines = ",\n".join(json.dumps(name) for name in names)
    return f"[\n{lines}\n]\n".encode("ascii")


def read(path: str, entry: FileEntry, num_classes: int) -> list[str]:
    """The names in the file ``path``, which is to be the one of ``entry``; fewer than ``num_classes`` may have one.

    Raises OSError where it cannot be read, ValueError for another file and for what are no names.
    """
    data = safe_open.read_bytes(path, safe_open.CLASS_NAMES)
    if len(data) != entry.num_bytes or hash_bytes(data) != entry.sha256:
        raise ValueError("is not the file that was written: its SHA-256 differs")
    names = plain_json.loads(data)
    problem = _problem(names, num_classes)
    if problem:
        raise ValueError(problem)
    return names


def _problem(names: object, num_classes: int) -> str:
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return "must be a list of texts"
    if not 1 <= len(names) <= num_classes:
        return f"{len(names)} names for {num_classes} classes"
    longest = max(map(len, names))
    if longest > MOST_CHARACTERS:
        return f"a name of {longest} characters; at most {MOST_CHARACTERS}"
    bad = next((name for name in names if any("\ud800" <= one <= "\udfff" for one in name)), None)
    return "" if bad is None else f"{ascii(bad)[:80]} holds half a character"
