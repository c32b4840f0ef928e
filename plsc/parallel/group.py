"""Communication between ranks outside of programs: barriers, small objects, and failures."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from plsc import errors
from plsc.backend import rings
from plsc.errors import LaunchError, PeerError, PlscError, TrainingError, first_line
from plsc.parallel.channel import Channel
from plsc.parallel.control import Control
from plsc.parallel.ending import GRACE_SECONDS
from plsc.parallel.environment import Environment
from plsc.parallel.interfaces import gloo_on_interface
from plsc.parallel.joining import control_of
from plsc.parallel.launcher import end_with_launcher
from plsc.parallel.naming import host_of
from plsc.parallel.nodelay import disable_nagle
from plsc.parallel.ports import free_port
from plsc.parallel.ranks import Ranks
from plsc.parallel.stalls import StallWatch

CONNECT_SECONDS = 600  # until every rank has started
GLOO_SECONDS = 7 * 86400  # Gloo's own timeout; a late rank is found and named by stalls.py
START_SECONDS = 45  # of Gloo, once all ranks have arrived at it
NCCL_SECONDS = 600  # of NCCL, which makes the context of each GPU first
_LATER_SECONDS = 5  # after which all ranks are ended where Gloo or NCCL has not returned
_LAST_SECONDS = 30  # and this process, where it holds Python's lock
_PORTS_TRIED = 5


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
    return Group(env)


class Group(Ranks):
    """All ranks of a run. If one fails, all end. With one rank every method returns at once and opens no connection.

    A rank that calls ``fail(message)``, or dies, ends the others: each prints the reason and exits with status 1, even
    when it is blocked in a collective, because a separate thread listens for failures (plsc.parallel.control). The
    program's collectives work after ``connect``.
    """

    def __init__(self, env: Environment):
        super().__init__(env.rank, env.world_size)
        self.waits_long = True  # False where collectives have a timeout of 30 s that cannot be changed
        self._control: Control | None = None
        self._stalls: StallWatch | None = None
        self._connected = ""
        self._refused = False
        self._running = threading.Lock()
        self._on_stopped: Callable[[str], None] = lambda text: None
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
        """Wait until every rank has started."""
        self._control = control_of(env)
        self._channel = Channel(self._control, "group")
        self._channel.says_who = True
        try:
            self._channel.exchange(b"", seconds=CONNECT_SECONDS)
        except PeerError:
            raise
        except TrainingError as error:
            self._control.lingers = False  # who has not come by now does not come
            raise LaunchError(
                f"cannot reach the other ranks through rank 0 at {env.endpoints[0]}: {error}; check that all "
                f"{env.world_size} ranks run and that the port is free and open"
            ) from None

    @property
    def on_stopped(self) -> Callable[[str], None]:
        """Called with the reason before this rank is ended because another one has failed; may be set."""
        return self._on_stopped if self._control is None else self._control.ending.on_stopped

    @on_stopped.setter
    def on_stopped(self, function: Callable[[str], None]) -> None:
        self._on_stopped = function
        if self._control is not None:
            self._control.ending.on_stopped = function

    def side(self, name: str) -> Ranks:
        """The same ranks for another thread, which may exchange values while the first one does.

        ``name``: the same on every rank, and a new one each time.
        """
        channel = None if self._control is None else Channel(self._control, f"side/{name}")
        return Ranks(self.rank, self.world_size, channel)

    def connect(self, env: Environment) -> None:
        """Start the communication of the program's collectives on ``env.device``. Raises LaunchError."""
        if self._channel is None or self._connected == env.device:
            return
        self.barrier("start of the collectives")  # Gloo and NCCL wait for a missing rank without a word
        if env.on_gpu:
            self._start_nccl(env)
        else:
            self._start_gloo(env)
        self.barrier("collectives started")
        self._channel.says_who = False
        self._connected = env.device

    def open_store(self, env: Environment) -> Any:
        """A key-value store of Paddle, which its own functions need to connect the ranks."""
        host = host_of(env.endpoints[0])
        store, port, problem = None, 0, ""
        for _ in range(_PORTS_TRIED if env.rank == 0 else 0):
            try:
                port = free_port(env.ports)
                store = rings.open_store(host, port, True, 1, START_SECONDS)
                break
            except Exception as error:  # another process was faster
                port, problem = 0, first_line(error)
        port, problem = self.broadcast([port, problem])
        if not port:
            raise LaunchError(f"rank 0 cannot open a port for Paddle's store: {problem}")
        if env.rank != 0:
            store = rings.open_store(host, port, False, 1, START_SECONDS)
        disable_nagle(port)
        self.barrier("store")
        disable_nagle(port)  # on rank 0 also its ends of the other ranks' connections, which exist by now
        return store

    def _start_gloo(self, env: Environment) -> None:
        endpoint = self.broadcast(f"{host_of(env.endpoints[0])}:{free_port(env.ports)}" if env.rank == 0 else None)
        try:
            with gloo_on_interface(env.endpoints, env.rank), self._bounded_start("Gloo", START_SECONDS):
                if rings.gloo_needs_store():
                    self._ring = rings.start_gloo(self.open_store(env), env.rank, env.world_size)
                else:
                    self._ring = rings.join_gloo(env.rank, env.world_size, endpoint, START_SECONDS, self.barrier)
        except PlscError:
            raise
        except Exception as error:
            self._cannot_start(f"cannot connect with the other ranks by Gloo: {first_line(error)}")
        self.waits_long = rings.set_gloo_timeout(env.rank, env.world_size, GLOO_SECONDS)

    @contextlib.contextmanager
    def _bounded_start(self, library: str, seconds: float) -> Iterator[None]:
        """End all ranks where Gloo or NCCL does not connect them in time, as when one of them has been stopped."""
        assert self._control is not None
        reason = (
            f"{library}, which has not connected the ranks within {seconds + _LATER_SECONDS} s: one of them is "
            "stopped, or a firewall closes their ports"
        )
        late = threading.Timer(seconds + _LATER_SECONDS, self._control.report_silent, [reason])
        late.daemon = True
        late.start()
        try:
            with _ended_after(seconds + _LAST_SECONDS):
                yield
        finally:
            late.cancel()

    def _start_nccl(self, env: Environment) -> None:
        try:
            with self._bounded_start("NCCL", NCCL_SECONDS):
                rings.start_nccl(self.open_store(env), env.rank, env.world_size, env.device_id)
        except PlscError:
            raise
        except Exception as error:
            self._cannot_start(
                f"cannot connect GPU {env.device_id} with those of the other ranks: "
                f"{first_line(error)}; check that every rank has its own GPU and that NCCL is installed"
            )

    def _cannot_start(self, message: str) -> None:
        reason = self.failure_reason()
        if reason:
            raise LaunchError(f"stopped because of {reason}") from None
        self.fail(message)  # the others wait for this rank
        raise LaunchError(message) from None

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

    def watch_stalls(self, seconds: float) -> None:
        """From now on, end all ranks with one reason when one is late by more than ``seconds``; 0 stops watching.

        Every rank must call it at the same time, and call ``begin_step`` before each step.
        """
        if self._stalls is not None:
            self._stalls.close()
            self._stalls = None
        if seconds > 0 and self._control is not None:
            send_step, on_stall = self._control.send_step, self._control.report_silent
            self._stalls = StallWatch(self.rank, self.world_size, seconds, send_step, on_stall)
            self._control.on_step(self._stalls.record)
            self._stalls.start()

    def begin_step(self, step: int) -> None:
        """Record that this rank begins ``step``, counted from 1."""
        if self._stalls is not None:
            self._stalls.begin_step(step)

    def fail(self, message: str) -> None:
        """Report to the other ranks why this one ends. With one rank it does nothing; the process may try again."""
        if self._control is not None:
            self._control.fail(message)

    def is_ending(self) -> bool:
        """True when this rank or another one has failed: this process is about to end by itself."""
        if self._refused:
            return True
        return self._control is not None and (self._control.has_left or bool(self._control.failure_reason(0)))

    def failure_reason(self) -> str:
        """Why another rank has ended, or an empty string. Waits a moment for the report."""
        return "" if self._control is None else self._control.failure_reason(GRACE_SECONDS)


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End the process, with the stacks of its threads, where what is inside takes longer. Gloo of Paddle 2.6 holds
    Python's lock while it waits, so that no thread of Python could do that."""
    try:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
        armed = True
    except (RuntimeError, ValueError, AttributeError, OSError):  # stderr is closed, or is no file
        armed = False
    try:
        yield
    finally:
        if armed:
            faulthandler.cancel_dump_traceback_later()
