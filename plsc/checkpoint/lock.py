"""One training at a time in a directory of a run.

A kernel lock (flock), which ends with the process that holds it; and a lease for file systems whose locks do not reach
other machines, or that have none: the modification time of the file, which its holder renews.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from plsc.checkpoint.layout import LOCK
from plsc.errors import CheckpointError
from plsc.files import safe_open

LEASE_SECONDS = 60.0
_RENEWALS = 6  # per lease
_SETTLE_SECONDS = 0.3  # without flock: until two processes that started together have both written
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class RunDirInUse(CheckpointError):
    """Another process trains in the directory."""


class RunLock:
    """Held from the constructor until ``release``, which deletes the file; that of a killed process does not count.

    what: the setting or option that names the directory. on_loss(reason): called in a thread if another process has
    taken the lock, after this one was suspended for longer than a lease on a file system without locks. Raises
    RunDirInUse, naming the holder, where it is held; OSError where the directory cannot be written.
    """

    def __init__(
        self, run_dir: str, on_loss: Callable[[str], None] = lambda reason: None, what: str = "model_save_dir"
    ):
        self.run_dir, self._what = run_dir, what
        self._path = os.path.join(run_dir, LOCK)
        self._token = secrets.token_hex(8)
        self._on_loss = on_loss
        self._released = threading.Event()
        self._mutex = threading.Lock()  # guards the descriptor: after closing, its number may be reused
        self._fd, self._locked = _open(self._path)
        try:
            if not self._locked:
                raise RunDirInUse(self._refusal(_read(self._fd), None))
            self._take()
        except BaseException:
            os.close(self._fd)
            raise
        threading.Thread(target=self._renew, daemon=True, name="plsc-lock").start()
        _release_in_forks(self)

    def _take(self) -> None:
        holder = _read(self._fd)
        left = os.fstat(self._fd).st_mtime + LEASE_SECONDS - _file_system_time(self.run_dir)
        if holder and left > 0 and not _has_ended(holder, self._locked == "by the kernel"):
            raise RunDirInUse(self._refusal(holder, left))
        mine = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "kernel": _kernel(),
                "process": _process(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")}  # fmt: skip
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(mine).encode(), 0)
        os.fsync(self._fd)
        if self._locked != "by the kernel":
            time.sleep(_SETTLE_SECONDS)
            if self._lost():
                raise RunDirInUse(self._refusal(_read(self._fd), LEASE_SECONDS))

    def _lost(self) -> bool:
        return _read(self._fd).get("token") != self._token

    def _renew(self) -> None:
        while not self._released.wait(LEASE_SECONDS / _RENEWALS):
            try:
                with self._mutex:
                    if self._released.is_set():
                        return
                    lost = self._lost()
                    if not lost:
                        os.utime(self._fd)
            except OSError:
                continue  # the disk is temporarily unavailable
            if lost:
                return self._on_loss(
                    f"{self.run_dir}: another run has taken this directory while this one was suspended"
                )

    def release(self) -> None:
        """Release the lock. May be called again."""
        if (
            self._released.is_set()
        ):  # also in a fork, where ``_mutex`` may be held by a thread that does not exist there
            return
        with self._mutex:
            if self._released.is_set():
                return
            self._released.set()
            try:
                if not self._lost():
                    os.unlink(self._path)
            except OSError:
                pass  # the next process finds that it is not held
            os.close(self._fd)

    def _refusal(self, holder: dict[str, Any], left: float | None) -> str:
        return _refusal(self._what, self.run_dir, holder, left)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_) -> None:
        self.release()


@contextlib.contextmanager
def exclusive_run_dir(run_dir: str, what: str) -> Iterator[None]:
    """Lock the directory of a run for writing, and create it if needed.

    Raises Held, and CheckpointError where it cannot be written; both begin with ``what``.
    """
    try:
        os.makedirs(run_dir, exist_ok=True)
        lock = RunLock(run_dir, what=what)
    except OSError as error:
        raise CheckpointError(f"{what}={run_dir!r}: cannot be written: {error.strerror or error}") from None
    with lock:
        yield


def _release_in_forks(lock: RunLock) -> None:
    """Close the lock in forks, which share it: a worker that outlives its parent must not hold it."""
    known = weakref.ref(lock)

    def forget() -> None:
        held = known()
        if held is not None and not held._released.is_set():
            held._released.set()
            os.close(held._fd)

    os.register_at_fork(after_in_child=forget)


def _open(path: str) -> tuple[int, str]:
    """(open file, how it is locked: "by the kernel", "by its lease alone", or "" where another process holds it)."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            how = "by the kernel"
        except BlockingIOError:
            return fd, ""
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(fd)
                raise
            how = "by its lease alone"
        if _is_same_file(fd, path):
            return fd, how
        os.close(fd)  # its holder deleted the file between open and flock


def _is_same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _read(fd: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(fd, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _file_system_time(directory: str) -> float:
    """The time of the file system: clocks of machines differ."""
    probe = os.path.join(directory, f"{LOCK}.{secrets.token_hex(8)}")
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(fd, b".")
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
        os.unlink(probe)


def _has_ended(holder: dict[str, Any], locked: bool) -> bool:
    """True if the process of a lease has certainly ended: otherwise it would hold the kernel lock or be visible."""
    if holder.get("kernel") != _kernel():
        return False
    if locked:
        return True
    seen = str(holder.get("process")).split()
    return seen[:1] == _process(os.getpid()).split()[:1] and " ".join(seen) != _process(holder.get("pid"))


def _kernel() -> str:
    """An identifier of the running kernel, equal in all its containers until reboot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


def _process(pid: Any) -> str:
    """The PID namespace (container), and the start time of the process ``pid`` in it."""
    try:
        room = os.readlink("/proc/self/ns/pid")
        with safe_open.open_text(f"/proc/{int(pid)}/stat", safe_open.SETTINGS, errors="replace") as file:
            return f"{room} {file.read().rpartition(')')[2].split()[19]}"
    except (OSError, ValueError, TypeError, IndexError, OverflowError):
        return ""


def _refusal(what: str, run_dir: str, holder: dict[str, Any], left: float | None) -> str:
    who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    text = f"{what}={run_dir!r}: {who} trains there{since}"
    if left is not None:
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        text += f", or was killed less than {LEASE_SECONDS:.0f} s ago: then it is free at {until}, in {left:.0f} s"
    return f"{text}; wait for its end, stop it, or choose another {what}"
