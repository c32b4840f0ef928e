"""Communication between ranks outside of programs: barriers, small objects, and failures."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from plsc import errors
from plsc.backend import rings
from plsc.errors import LaunchError, PlscError, first_line
from plsc.parallel.environment import Environment
from plsc.parallel.failure_channel import FailureChannel
from plsc.parallel.interfaces import gloo_on_interface
from plsc.parallel.launcher import end_with_launcher
from plsc.parallel.nodelay import disable_nagle
from plsc.parallel.ports import free_port
from plsc.parallel.ranks import Ranks
from plsc.parallel.stalls import StallWatch
from plsc.terminal import flush, print_stderr

CONNECT_SECONDS = 600  # until every rank has started
LEAVE_SECONDS = 60
GLOO_SECONDS = 7 * 86400  # Gloo's own timeout; a late rank is found and named by stalls.py
GRACE_SECONDS = 1.0  # after another rank's failure, before this rank is ended if it has not ended by itself


def connected_group(env: Environment) -> Group:
    """The group of all ranks, connected once per process: a script may train, test and export in turn."""
    group = open_group(env)
    group.connect(env)
    return group


def open_group(env: Environment) -> Group:
    """The same group before ``connect``: everything except the collectives of programs works."""
    return _open_group(replace(env, device="cpu", device_id=0))


@functools.cache
def _open_group(env: Environment) -> Group:
    end_with_launcher(env)
    group = Group(env)
    atexit.register(group.close)
    return group


class Group(Ranks):
    """All ranks of a run. If one fails, all end. With one rank every method returns at once and opens no connection.

    A rank that calls ``fail(message)``, or dies, ends the others: each prints the reason and exits with status 1, even
    when it is blocked in a collective, because a separate thread listens for failures (plsc.parallel.failure_channel).
    The program's collectives work after ``connect``.
    """

    def __init__(self, env: Environment):
        super().__init__(env.rank, env.world_size, keys="gather")
        self.on_stopped: Callable[[str], None] = lambda text: None  # called with the reason before this rank is ended
        self.waits_long = True  # False where collectives have a timeout of 30 s that cannot be changed
        self._failures: FailureChannel | None = None
        self._stalls: StallWatch | None = None
        self._connected = ""
        self._refused = False
        self._closed = threading.Event()
        self._ending = threading.Lock()  # only one of two threads reports why this rank ends
        self._running = threading.Lock()
        if env.world_size > 1:
            self._open(env)

    @contextlib.contextmanager
    def exclusive_run(self) -> Iterator[None]:
        """Allow one run at a time: static programs, the log and the group are shared by the whole process.

        Raises LaunchError where another run, in another thread or around this one, is in progress.
        """
        if not self._running.acquire(blocking=False):
            raise LaunchError(
                "a train(), test(), predict() or convert_for_prediction() is in progress in this process: call one "
                "after the other, or use one process for each (a plsc.Predictor may be used by many threads)"
            )
        try:
            yield
        finally:
            self._running.release()

    def _open(self, env: Environment) -> None:
        host, port = env.endpoints[0].rsplit(":", 1)
        try:
            self._store = self._open_store(host, int(port))
            self._failures = FailureChannel(env.rank, env.world_size, host, self.broadcast, self._stop, CONNECT_SECONDS)
        except Exception as error:
            raise LaunchError(
                f"cannot reach the other ranks through rank 0 at {env.endpoints[0]} within {CONNECT_SECONDS} "
                f"seconds; check that all {env.world_size} ranks run and that the port is free and open "
                f"({first_line(error)})"
            ) from None

    def _open_store(self, host: str, port: int):
        """The store, once every rank has connected. Paddle's own wait would end the process after its timeout."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while self.rank != 0 and not _is_open(host, port, deadline):
            time.sleep(0.1)
        store = rings.open_store(host, port, self.rank == 0, 1, CONNECT_SECONDS)
        disable_nagle(port)
        store.add("here", 1)
        while store.add("here", 0) < self.world_size:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {store.add('here', 0)} of them have connected")
            time.sleep(0.01)
        disable_nagle(port)  # on rank 0 also its ends of the other ranks' connections, which exist by now
        return store

    def connect(self, env: Environment) -> None:
        """Start the communication of the program's collectives on ``env.device``. Raises LaunchError."""
        if self.world_size == 1 or self._connected == env.device:
            return
        if env.on_gpu:
            self._start_nccl(env)
        else:
            host = env.endpoints[0].rsplit(":", 1)[0]
            gloo_endpoint = self.broadcast(f"{host}:{free_port(env.ports)}" if env.rank == 0 else None)
            with gloo_on_interface(env.endpoints, env.rank):
                self._ring = rings.start_gloo(self._store, env.rank, env.world_size, gloo_endpoint)
            self.waits_long = rings.set_gloo_timeout(env.rank, env.world_size, GLOO_SECONDS)
        self._connected = env.device

    def agree(self, check: Callable[[], Any]) -> Any:
        """The result of ``check()`` on this rank. If it raises a PlscError on any rank, every rank raises one.

        The group can be used afterwards, so the process may try again.
        """
        value, own, self._refused = None, None, False
        try:
            value = check()
        except PlscError as error:
            own = error
        problems = self.all_gather(None if own is None else [type(own).__name__, str(own)])
        self._refused = any(problems)
        if own is not None:
            raise own
        for rank, problem in enumerate(problems):
            if problem is not None:
                kind = getattr(errors, problem[0], PlscError)
                raise kind(f"rank {rank}: {problem[1]}")
        return value

    def _start_nccl(self, env: Environment) -> None:
        try:
            rings.start_nccl(self._store, env.rank, env.world_size, env.device_id)
        except Exception as error:
            message = (
                f"cannot connect GPU {env.device_id} with those of the other ranks: "
                f"{first_line(error)}; check that every rank has its own GPU and that NCCL is installed"
            )
            self.fail(message)  # the others wait for this rank
            raise LaunchError(message) from None

    def all_gather(self, value: Any) -> list[Any]:
        """See Ranks. Raises LaunchError after this rank has failed."""
        if self._closed.is_set() and self.world_size > 1:
            raise LaunchError("this process has left the other ranks after an error; restart all ranks")
        return super().all_gather(value)

    def watch_stalls(self, seconds: float) -> None:
        """From now on, end all ranks with one reason when one is late by more than ``seconds``; 0 stops watching.

        Every rank must call it at the same time, and call ``begin_step`` before each step.
        """
        if self._stalls is not None:
            self._stalls.close()
            self._stalls = None
        if seconds > 0 and self._failures is not None:
            send_step, on_stall = self._failures.send_step, self._failures.report_silent
            self._stalls = StallWatch(self.rank, self.world_size, seconds, send_step, on_stall)
            self._failures.on_step(self._stalls.record)
            self._stalls.start()

    def begin_step(self, step: int) -> None:
        """Record that this rank begins ``step``, counted from 1."""
        if self._stalls is not None:
            self._stalls.begin_step(step)

    def fail(self, message: str) -> None:
        """Report to the other ranks why this one ends. With one rank it does nothing; the process may try again."""
        if self.world_size == 1:
            return
        with self._ending:
            self._closed.set()
        if self._failures is not None:
            self._failures.report(message)

    def is_ending(self) -> bool:
        """True when this rank or another one has failed: this process is about to end by itself."""
        if self._refused or self._closed.is_set():
            return True
        return self._failures is not None and bool(self._failures.failure_reason(0))

    def failure_reason(self) -> str:
        """Why another rank has ended, or an empty string. Waits a moment for the report."""
        return "" if self._failures is None else self._failures.failure_reason(GRACE_SECONDS)

    def close(self) -> None:
        """Leave the group. Rank 0, which holds the store, waits for the other ranks to leave first."""
        if self._store is None or self._closed.is_set():
            return
        self._closed.set()
        self._failures.close()
        try:
            if self.rank != 0:
                self._store.add("left", 1)
                return
            deadline = time.monotonic() + LEAVE_SECONDS
            while self._store.add("left", 0) < self.world_size - 1 and time.monotonic() < deadline:
                time.sleep(0.01)
        except (RuntimeError, OSError, ValueError):
            return  # the store is gone: nothing left to wait for

    def _stop(self, reason: str) -> None:
        """End this process unless it ends by itself: its main thread may be blocked in a collective."""
        self._closed.wait(GRACE_SECONDS)
        with self._ending:
            if self._closed.is_set():
                return
            self.on_stopped(f"stopped because of {reason}")
            print_stderr(f"plsc: error: [rank {self.rank}] stopped because of {reason}")
            flush()
            os._exit(1)


def _is_open(host: str, port: int, deadline: float) -> bool:
    """True if the port accepts connections. Raises OSError when the deadline has passed."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        if time.monotonic() > deadline:
            raise
        return False
    return True
