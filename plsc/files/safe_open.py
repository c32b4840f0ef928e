"""Opens untrusted files for reading: regular files of limited size only, without blocking.

Opening a pipe without a writer would block, /dev/zero would be read until memory is full, and opening some devices has
side effects. Everything but a regular file is refused before it is opened and, because the name may refer to another
file by then, again after it was opened. tests/files/test_safe_open.py checks that all of plsc opens files this way.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import Any, TextIO, Union

PathLike = Union[str, bytes, "os.PathLike[Any]"]

MIB, GIB = 2**20, 2**30
# Maximum file sizes in bytes, about ten times the largest ones in use.
YAML = 256 * 1024  # parsing takes a second per 100 KB
SETTINGS = 4 * MIB  # meta.json, plsc.json, the state of predictions
MANIFEST = 64 * MIB
IMAGE = 256 * MIB
IMAGE_SET = 64 * GIB  # in one .bin
CLASS_NAMES = GIB
LIST = 4 * GIB  # of pairs, of labels, of templates
TRAINING_LIST = 64 * GIB
TENSORS = 1024 * GIB
CONTAINER = 1024 * GIB

_KINDS = (
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"),
)  # fmt: skip


def open_bytes(path: PathLike, max_bytes: int) -> io.BufferedReader:
    """Open a regular file of at most ``max_bytes`` for reading; links are followed.

    Raises OSError, whose ``strerror`` can be used in a message, for a file that cannot be opened, is not a regular file
    or is too large.
    """
    handle = -1
    try:
        _require_regular(os.stat(path), path, max_bytes)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        _require_regular(os.fstat(handle), path, max_bytes)
        return os.fdopen(handle, "rb")
    except ValueError as error:  # a null byte, or a character that is not allowed in file names
        raise OSError(errno.EINVAL, f"is not a valid file name ({error})", path) from None
    except OSError:
        if handle >= 0:
            os.close(handle)
        raise


def open_text(path: PathLike, max_bytes: int, encoding: str = "utf-8", errors: str = "strict", newline=None) -> TextIO:
    """``open_bytes`` for text; encoding, errors and newline as in ``open``."""
    return io.TextIOWrapper(open_bytes(path, max_bytes), encoding, errors, newline)


def read_bytes(path: PathLike, max_bytes: int) -> bytes:
    """The contents of a file opened by ``open_bytes``; at most ``max_bytes``, even if the file grows meanwhile."""
    parts, total = [], 0
    with open_bytes(path, max_bytes) as file:
        wanted = os.fstat(file.fileno()).st_size + 1  # all of it at once, and no larger buffer
        while total <= max_bytes and (part := file.read(min(wanted, max_bytes + 1 - total))):
            parts.append(part)
            total, wanted = total + len(part), MIB
    if total > max_bytes:
        raise _too_large(total, path, max_bytes)
    return b"".join(parts)


def kind_of(mode: int) -> str:
    """What kind of special file this ``st_mode`` belongs to."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")


def _require_regular(found: os.stat_result, path: PathLike, max_bytes: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"is {kind_of(found.st_mode)}, not a regular file", path)
    if found.st_size > max_bytes:
        raise _too_large(found.st_size, path, max_bytes)


def _too_large(size: int, path: PathLike, max_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"has {size:,} bytes; at most {max_bytes:,} are allowed", path)
