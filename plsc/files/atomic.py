"""The one way to put a file or a directory in its place: all of it is there, or what was there before.

Both are written beside the place, flushed to disk, renamed, and the rename is flushed too. A process that is killed in
between, or a machine that loses its power, leaves the old one or the new one, never a part of it.
tests/project/test_atomic_writes.py holds all of plsc to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, Union

from plsc.files.safe_open import kind_of

PathLike = Union[str, "os.PathLike[str]"]
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp", re.DOTALL)  # what whole_file writes to


@contextlib.contextmanager
def whole_file(path: PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` to write bytes to; at the end of the block it takes the place of ``path``.

    An error in the block removes it, and what was at ``path`` stays. A link at ``path`` is replaced, not followed; the
    new file has the rights of any new file. Raises OSError, with ``filename`` set; also where ``path`` is a directory
    or a device, which a rename would replace.
    """
    path = os.fspath(path)
    _require_replaceable(path)
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:  # x: a link that somebody planted there is not followed
            yield file
            flush(file)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename, error.filename2 = path, None
        raise
    sync_dir(directory or os.curdir)


def write_bytes(path: PathLike, data: bytes) -> None:
    """A file with these bytes, as ``whole_file`` puts it in its place."""
    with whole_file(path) as file:
        file.write(data)


def remove_temporaries(directory: str) -> None:
    """Delete what killed writers left in a directory to which nobody else writes now."""
    for name in os.listdir(directory):
        if _TEMPORARY.fullmatch(name):
            os.unlink(os.path.join(directory, name))


def put_directory(aside: str, final: str, replaced: str | None = None) -> None:
    """Give the directory ``aside``, whose files are flushed, the name ``final`` beside it.

    What is at ``final`` is renamed to ``replaced`` first, where that is given; to delete it is the caller's. A kill
    between the two renames leaves both whole, and ``restore`` undoes the first. Raises OSError.
    """
    sync_dir(aside)
    if replaced is not None and os.path.lexists(final):
        os.replace(final, replaced)
    rename(aside, final)


def restore(final: str, replaced: str) -> None:
    """Undo the first rename of a ``put_directory`` that was killed before its second. Raises OSError."""
    if os.path.isdir(replaced) and not os.path.lexists(final):
        rename(replaced, final)


def rename(path: str, target: str) -> None:
    """Another name in the same directory, on disk when this returns. Raises OSError."""
    os.replace(path, target)
    sync_dir(os.path.dirname(target) or os.curdir)


def rename_new(path: str, target: str) -> None:
    """``rename`` of a file that never replaces: raises FileExistsError where ``target`` is there. Needs hard links."""
    os.link(path, target)
    os.unlink(path)
    sync_dir(os.path.dirname(target) or os.curdir)


def flush(file: Any) -> None:
    """Flush an open file to disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_path(path: str) -> None:
    """Flush a file that others have written to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe that somebody put there: no waiting
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_dir(path: str) -> None:
    """Flush the names in a directory to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush a directory, and say so like this
            raise
    finally:
        os.close(handle)


def _require_replaceable(path: str) -> None:
    """Raise OSError for /dev/null, /dev/stdout and the like: root's rename would put a file in their place."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # nothing there, or a link to nothing
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {kind_of(mode)}, no regular file", path)
