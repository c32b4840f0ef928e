"""A directory for executable files and caches, which only the user and root can write to.

A user with write access to a parent directory could replace it. So each directory, starting at /, is opened relative to
the previous one and checked after opening, as ssh does for its keys (StrictModes). Files are opened relative to the
last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_TRIES = 10_000  # a process may lose against each of the others again and again
_POLL_SECONDS = 0.05  # between two attempts to lock a file
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Directory:
    """An open directory. The methods take names of files in it."""

    path: Path  # for messages
    handle: int

    @property
    def as_path(self) -> str:
        """A path for child processes of this process."""
        return f"/proc/self/fd/{self.handle}"

    def open_file(self, name: str) -> int | None:
        """Open a regular file for reading; None if it does not exist.

        Raises PermissionError unless the file is owned by the user and writable by nobody else.
        """
        try:
            handle = os.open(name, os.O_RDONLY | _FILE, dir_fd=self.handle)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                raise _refused(self.path / name) from None
            raise
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or _others_write(found):
            os.close(handle)
            raise _refused(self.path / name)
        return handle

    def create_file(self, name: str) -> int:
        """Create a file and open it for writing. Raises FileExistsError."""
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=self.handle)

    @contextlib.contextmanager
    def locked(self, lock: str, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
        """A context that one process at a time can enter; ``lock``: the name of the lock file, which is removed at the
        end. waits: called again and again while another process is in it. Raises OSError."""
        handle = self._lock(lock, waits)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self.remove(lock)  # while it is locked: see _lock
            os.close(handle)

    def rename(self, name: str, final: str, mode: int) -> None:
        """Rename a complete file to its final name, with the permissions ``mode``."""
        os.chmod(name, mode, dir_fd=self.handle)
        os.replace(name, final, src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def remove_unlocked(self, name: str, before: float) -> None:
        """Remove a file that no process has locked (flock), and that was last changed before that time.

        Opened for writing, as network file systems demand for an exclusive lock. A file that cannot be locked or
        removed stays.
        """
        try:
            handle = os.open(name, os.O_RDWR | _FILE, dir_fd=self.handle)
        except OSError:  # it is gone, or another user's
            return
        try:
            if os.fstat(handle).st_mtime <= before:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.remove(name)
        except OSError:
            pass
        finally:
            os.close(handle)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self.handle)

    def _lock(self, lock: str, waits: Callable[[], None]) -> int:
        """Create and lock a file. Its owner removes it before it unlocks it, so that a process that waited for it has a
        file without a name then, while the next one may have a new one of this name: it begins anew."""
        for _ in range(_MOST_TRIES):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | _FILE, 0o600, dir_fd=self.handle)
            try:
                _wait_for_lock(handle, waits)
                if os.path.samestat(os.fstat(handle), os.stat(lock, dir_fd=self.handle, follow_symlinks=False)):
                    return handle
            except FileNotFoundError:  # of os.stat
                pass
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
        raise OSError(f"{self.path / lock} cannot be locked: it is always another file")


def _wait_for_lock(handle: int, waits: Callable[[], None]) -> None:
    """Lock a file. Raises OSError."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waits()
            time.sleep(_POLL_SECONDS)


def user_cache(*parts: str) -> str:
    """The path of a directory in this user's cache of PLSC: ``XDG_CACHE_HOME``, or ~/.cache. Raises OSError."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        raise OSError(f"the cache directory {base!r} is not absolute (set XDG_CACHE_HOME to an absolute path)")
    return os.path.realpath(os.path.join(base, "plsc", *parts))


@contextlib.contextmanager
def open_directory(path: str | os.PathLike[str]) -> Iterator[Directory]:
    """Open the directory ``path``, which is absolute and without links; missing directories are created.

    It must be owned by the user, and each parent by the user or root. None of them may be writable by others, except
    parents with the sticky bit, such as /tmp, in which users cannot replace files of others. Raises PermissionError
    that names the wrong directory, and other OSErrors.
    """
    parts = Path(path).parts
    here, handle = Path(parts[0]), os.open(parts[0], _DIRECTORY)
    try:
        _check(here, handle, is_last=len(parts) == 1)
        for number, name in enumerate(parts[1:], 2):
            here = here / name
            inner = _enter(name, handle)
            os.close(handle)
            handle = inner
            _check(here, handle, is_last=number == len(parts))
        yield Directory(here, handle)
    finally:
        os.close(handle)


def _enter(name: str, outer: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=outer)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # created by another process meanwhile
            os.mkdir(name, 0o700, dir_fd=outer)
        return os.open(name, _DIRECTORY, dir_fd=outer)


def _check(path: Path, handle: int, is_last: bool) -> None:
    found = os.fstat(handle)
    owners = {os.geteuid()} if is_last else {os.geteuid(), 0}
    sticky = found.st_mode & stat.S_ISVTX and not is_last
    if found.st_uid not in owners or (_others_write(found) and not sticky):
        raise _refused(path)


def _others_write(found: os.stat_result) -> bool:
    return bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _refused(path: Path) -> PermissionError:
    return PermissionError(f"{path} must be owned by you and not writable by others (delete it, or chown, chmod go-w)")
