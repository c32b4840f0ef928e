"""The one way to open a file for reading that somebody else may have made: a regular file, of bounded size, at once.

A pipe without a writer would be waited for, a link to /dev/zero read until memory is full, a terminal or a tape would
be moved by being opened at all. What is no regular file is refused here before it is opened and, because a name can be
exchanged in between, once more when it is open. tests/files/test_safe_open.py holds all of plsc to it.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import Any, TextIO, Union

PathLike = Union[str, bytes, "os.PathLike[Any]"]

MIB, GIB = 2**20, 2**30
# What a file may have at most, in bytes: some ten times of what one was ever seen to need.
YAML = 256 * 1024  # it is parsed in Python, a second for each 100 KB
SETTINGS = 4 * MIB  # meta.json, plsc.json, the state of predictions
MANIFEST = 64 * MIB
PICTURE = 256 * MIB
PICTURES = 64 * GIB  # a set of them, in one .bin
CLASS_NAMES = GIB
LIST = 4 * GIB  # of pairs, of labels, of templates
TRAINING_LIST = 64 * GIB
TENSORS = 1024 * GIB
CONTAINER = 1024 * GIB

_KINDS = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"),
)  # fmt: skip


def open_bytes(path: PathLike, most: int) -> io.BufferedReader:
    """A regular file of at most ``most`` bytes, open for reading; links are followed.

    Raises OSError, whose ``strerror`` is fit for a message, for what cannot be opened and for what is something else.
    """
    handle = -1
    try:
        _require_regular(os.stat(path), path, most)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        _require_regular(os.fstat(handle), path, most)
        return os.fdopen(handle, "rb")
    except ValueError as error:  # a null byte, a character that no file name can have
        raise OSError(errno.EINVAL, f"the name cannot be one of a file ({error})", path) from None
    except OSError:
        if handle >= 0:
            os.close(handle)
        raise


def open_text(path: PathLike, most: int, encoding: str = "utf-8", errors: str = "strict", newline=None) -> TextIO:
    """``open_bytes`` for text; the last three as those of Python's open."""
    return io.TextIOWrapper(open_bytes(path, most), encoding, errors, newline)


def read_bytes(path: PathLike, most: int) -> bytes:
    """The contents of a file as ``open_bytes`` opens it, never more than ``most`` bytes, also of one that grows."""
    parts, total = [], 0
    with open_bytes(path, most) as file:
        wanted = os.fstat(file.fileno()).st_size + 1  # all of it at once; asking for more would make room for more
        while total <= most and (part := file.read(min(wanted, most + 1 - total))):
            parts.append(part)
            total, wanted = total + len(part), MIB
    if total > most:
        raise _too_large(total, path, most)
    return b"".join(parts)


def kind_of(mode: int) -> str:
    """What a file with this ``st_mode`` is, that is neither a regular one nor a directory."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")


def _require_regular(found: os.stat_result, path: PathLike, most: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"is {kind_of(found.st_mode)}, no regular file", path)
    if found.st_size > most:
        raise _too_large(found.st_size, path, most)


def _too_large(size: int, path: PathLike, most: int) -> OSError:
    return OSError(errno.EFBIG, f"has {size} bytes; such a file may have {most}", path)
