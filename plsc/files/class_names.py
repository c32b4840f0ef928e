"""The names of the classes, by label, in a file beside a checkpoint's tensors or an exported model.

JSON: a list of strings, one per line. Files are untrusted: size, hash and contents are checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from plsc.files import plain_json, safe_open
from plsc.files.hashes import FileEntry, hash_bytes

CLASS_NAMES = "class_names.json"
MAX_CHARACTERS = 4096  # of a name


def to_bytes(names: Sequence[str], num_classes: int) -> bytes:
    """The contents of the file. Raises ValueError for invalid names, or more names than classes."""
    problem = _problem(names, num_classes)
    if problem:
        raise ValueError(f"class_names: {problem}")
    lines = ",\n".join(json.dumps(name) for name in names)
    return f"[\n{lines}\n]\n".encode("ascii")


def read(path: str, entry: FileEntry, num_classes: int) -> list[str]:
    """The names in the file ``path``, at most ``num_classes``. Its size and hash must be those of ``entry``.

    Raises OSError if it cannot be read, ValueError for another file and for invalid names.
    """
    data = safe_open.read_bytes(path, safe_open.CLASS_NAMES)
    if len(data) != entry.num_bytes or hash_bytes(data) != entry.sha256:
        raise ValueError("is not the file that was written: its SHA-256 differs")
    names = plain_json.loads(data)
    problem = _problem(names, num_classes)
    if problem:
        raise ValueError(problem)
    return names


def summary(names: Sequence[str] | None) -> str:
    """A short text that differs for other names."""
    if not names:
        return "empty"
    digest = hash_bytes("\n".join(map(ascii, names)).encode("ascii"))
    return f"{len(names)} names (digest {digest[:12]})"


def _problem(names: object, num_classes: int) -> str:
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return "must be a list of strings"
    if not 1 <= len(names) <= num_classes:
        return f"{len(names)} names for {num_classes} classes"
    longest = max(map(len, names))
    if longest > MAX_CHARACTERS:
        return f"a name of {longest} characters; at most {MAX_CHARACTERS}"
    bad = next((name for name in names if any("\ud800" <= one <= "\udfff" for one in name)), None)
    return "" if bad is None else f"{ascii(bad)[:80]} holds half a character"
