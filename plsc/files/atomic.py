"""Atomic writes of files and directories: afterwards there is the complete new one, or still the old one.

Both are written under a temporary name in the same directory, flushed to disk and renamed; the rename is flushed too.
If the process is killed or the machine loses power, the old or the new one is left, never a part of it.
tests/project/test_atomic_writes.py checks that all of plsc writes this way.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, Union

from plsc.files.safe_open import kind_of

PathLike = Union[str, "os.PathLike[str]"]
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp", re.DOTALL)  # the temporary names of whole_file


@contextlib.contextmanager
def whole_file(path: PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` for writing bytes; at the end of the block it replaces ``path``.

    On an exception in the block the temporary file is removed and ``path`` is unchanged. A symbolic link at ``path`` is
    replaced, not followed; the new file has default permissions. Raises OSError with ``filename`` set, also where
    ``path`` is a directory or a device.
    """
    path = os.fspath(path)
    _require_replaceable(path)
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:  # x: does not follow a link that another user may have put there
            yield file
            flush(file)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, temporary):
            error.filename, error.filename2 = path, None
        raise
    sync_dir(directory or os.curdir)


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write a file atomically, see ``whole_file``."""
    with whole_file(path) as file:
        file.write(data)


def remove_temporaries(directory: str) -> None:
    """Delete temporary files of killed processes. No other process may be writing to the directory."""
    for name in os.listdir(directory):
        if _TEMPORARY.fullmatch(name):
            os.unlink(os.path.join(directory, name))


def put_directory(aside: str, final: str, replaced: str | None = None) -> None:
    """Rename the directory ``aside``, whose files are flushed, to ``final`` beside it.

    If ``replaced`` is given, an existing ``final`` is renamed to it first; the caller deletes it. If the process is
    killed between the two renames, both directories are complete, and ``restore`` undoes the first rename. Raises
    OSError.
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
    """Rename within a directory; the rename is on disk when this returns. Raises OSError."""
    os.replace(path, target)
    sync_dir(os.path.dirname(target) or os.curdir)


def rename_new(path: str, target: str) -> None:
    """``rename`` for a file that raises FileExistsError if ``target`` exists. Needs hard links."""
    os.link(path, target)
    os.unlink(path)
    sync_dir(os.path.dirname(target) or os.curdir)


def flush(file: Any) -> None:
    """Flush an open file to disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_path(path: str) -> None:
    """Flush a file that was written by other code to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # does not block if it is a pipe
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_file_system(path: str) -> None:
    """Flush everything that was written to the file system of a directory, by any process. For many small files this is
    a hundred times faster than flushing each."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(handle)


def sync_dir(path: str) -> None:
    """Flush the entries of a directory to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush directories
            raise
    finally:
        os.close(handle)


def _require_replaceable(path: str) -> None:
    """Raise OSError for /dev/null, /dev/stdout and so on, which a rename by root would replace."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # does not exist, or is a dangling link
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {kind_of(mode)}, not a regular file", path)
