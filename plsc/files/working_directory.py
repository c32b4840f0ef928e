"""A directory that a long job fills, and continues after an interruption: one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from plsc.errors import DataError


@contextlib.contextmanager
def working_directory(path: str, what: str) -> Iterator[None]:
    """Create the directory ``path`` if it is not there, and lock it against other processes (flock).

    The lock ends with the process. Where the file system has no such locks there is none. Raises DataError that begins
    with ``what`` if another process holds the lock, OSError if there can be no directory.
    """
    os.makedirs(path, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise DataError(
                    f"{what}: another process is writing {path!r} now; wait until it has ended, or give another place"
                ) from None
        yield
    finally:
        os.close(handle)
