"""The control connections of a run: one from every rank to rank 0, open from the start of the process to its end.

They carry values that the ranks exchange (plsc.parallel.channel), the step that each has begun (plsc.parallel.stalls),
and why a rank fails. The kernel closes the sockets of a process that dies, whatever the reason and whatever the other
ranks wait for, so the end of a connection means the end of a rank.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from plsc.errors import LaunchError, PeerError, reason_of
from plsc.parallel.connection import Connection
from plsc.parallel.ending import Ending
from plsc.parallel.environment import Environment
from plsc.parallel.frames import encode
from plsc.parallel.gathers import Key
from plsc.parallel.loop import Loop
from plsc.terminal import print_stderr

LINGER_SECONDS = 60  # that a rank which has failed waits for those that it has not told yet
_SEND_SECONDS = 5.0
_BEAT = encode({"beat": True})
_ANSWER_SECONDS = 2.0  # of rank 0 to the question whom it waits for


class Waiter:
    """A thread that waits for the values of all ranks; ``texts`` are None where there are none to come."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.texts: list[bytes] | None = None
        self.missing, self.told = "", threading.Event()


class Control:
    """What the side of rank 0 (Hub) and that of the other ranks (Spoke) have in common.

    Methods whose names begin with "_" run in the thread of the loop, all others in any other thread.
    """

    def __init__(self, env: Environment):
        self.env = env
        self.ending = Ending(env.rank)
        self.lingers = True  # waits, after a failure, for ranks that start later
        self._on_step: Callable[[int, int], None] = lambda rank, step: None
        self._waiters: dict[Key, Waiter] = {}
        self._reason = ""  # of another rank's failure
        self._unusable = ""  # why this rank cannot take part
        self._failed = threading.Event()
        self._farewell: dict[str, Any] | None = None  # once this rank has left
        self._joined = False
        self._process = os.getpid()
        self._loop = Loop(self._beat, self._break)
        self._start_thread(self._end_when_failed, "plsc-stop")  # now: a program that ends can start no thread

    @property
    def has_left(self) -> bool:
        """Whether this rank has failed or closed."""
        return self._farewell is not None

    @property
    def has_joined(self) -> bool:
        """Whether this rank has exchanged a value with all others."""
        return self._joined

    def exchange(self, key: Key, body: bytes, first_only: bool) -> Waiter:
        """Send the value of this rank; the values of all, or that of rank 0, will be in the result.

        Raises LaunchError in a fork of this process, which is no rank.
        """
        if self._process != os.getpid():
            raise LaunchError(
                f"process {os.getpid()} was forked from rank {self.env.rank} after that had connected with the other "
                "ranks: make the Entry and use it in the same process"
            )
        waiter = Waiter()
        self._loop.call(lambda: self._begin(key, waiter, body, first_only))
        return waiter

    def result(self, waiter: Waiter) -> list[bytes]:
        """The values once ``waiter`` is done. Raises PeerError if another rank has ended, LaunchError if this one has
        left or cannot take part."""
        if waiter.texts is not None:
            return waiter.texts
        if self._unusable:
            raise LaunchError(self._unusable)
        if self._reason:
            raise PeerError(f"stopped because of {self._reason}")
        raise LaunchError("this process has left the other ranks after an error; restart all ranks")

    def missing(self, key: Key, waiter: Waiter) -> str:
        """Which ranks have not sent their value: "rank(s) 1 to 3 (10.0.0.2)"."""
        waiter.missing = f"rank 0 ({self.env.endpoints[0]}), which does not answer"
        waiter.told.clear()
        self._loop.call(lambda: self._ask(key, waiter))
        waiter.told.wait(_ANSWER_SECONDS)
        return waiter.missing

    def fail(self, message: str) -> None:
        """Report to the others why this rank fails. Nothing is exchanged afterwards."""
        if self._process != os.getpid():
            return  # a fork, which is no rank
        self.ending.by_itself()
        self._leave({"failed": f"rank {self.env.rank}: {message}"})

    def report_silent(self, reason: str) -> None:
        """Report the failure of another rank that has not reported it itself."""
        self._loop.call(lambda: self._fail(reason))

    def on_step(self, on_step: Callable[[int, int], None]) -> None:
        """Call on_step(rank, step), in the thread of the loop, for each ``send_step`` of another rank."""
        self._on_step = on_step

    def send_step(self, step: int) -> None:
        """Send the step that this rank has begun to rank 0, or from rank 0 to all others."""
        self._loop.call(lambda: self._loop.send(self._links(), encode({"step": step})))

    def failure_reason(self, seconds: float) -> str:
        """Why another rank has ended, waiting for a report for ``seconds``; an empty string if there is none."""
        self._failed.wait(seconds)
        return self._reason

    def close(self, seconds: float) -> None:
        """Leave without failure. Rank 0 waits for the others to leave, for at most ``seconds``."""
        if self._process != os.getpid():
            return
        self.ending.by_itself()
        self._leave({"bye": True})
        if self._joined:
            self.await_others(seconds)

    def await_others(self, seconds: float) -> None:
        """Wait until all other ranks have left, where this one has to."""

    def linger(self, seconds: float = LINGER_SECONDS) -> None:
        """After a failure: wait until the other ranks know of it, also those that start later, for ``seconds``."""
        if self._process != os.getpid():
            return
        untold = self.untold() if self.lingers else ""
        if untold:
            self.say(f"it tells {untold} before it ends, for at most {seconds:g} s")
        deadline = time.monotonic() + seconds
        while untold and self.untold() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._flush()

    def untold(self) -> str:
        """The ranks that a failure of which this rank knows has not reached through it."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Print a line about the ranks, which begins with the number of this one."""
        print_stderr(f"plsc: [rank {self.env.rank}] {text}")

    def _beat(self) -> None:
        """Send something, so that the kernel notices a cut of the network as soon while nothing is exchanged: for idle
        connections it counts anew from the next message."""
        if not self.has_left:
            self._loop.send(self._links(), _BEAT)

    def _begin(self, key: Key, waiter: Waiter, body: bytes, first_only: bool) -> None:
        if self._reason or self._unusable or self.has_left:
            waiter.done.set()
            return
        self._waiters[key] = waiter
        self._offer(key, body, first_only)

    def _offer(self, key: Key, body: bytes, first_only: bool) -> None:
        raise NotImplementedError

    def _ask(self, key: Key, waiter: Waiter) -> None:
        raise NotImplementedError

    def _links(self) -> Iterable[Connection]:
        """The connections with other ranks."""
        raise NotImplementedError

    def _finish(self, key: Key, texts: list[bytes]) -> None:
        waiter = self._waiters.pop(key, None)
        if waiter is not None:
            self._joined = True
            waiter.texts = texts
            waiter.done.set()

    def _fail(self, reason: str, source: Connection | None = None) -> None:
        """Another rank has failed: tell it to those that do not know it from ``source``."""
        if self.has_left or self._failed.is_set():
            return
        self._reason = reason
        self._loop.send([link for link in self._links() if link is not source], encode({"failed": reason}))
        self._failed.set()
        self._release()

    def _cannot_join(self, text: str) -> None:
        self._unusable = text
        self._release()

    def _release(self) -> None:
        """Nothing more will come."""
        for waiter in self._waiters.values():
            waiter.done.set()
        self._waiters.clear()

    def _leave(self, farewell: dict[str, Any]) -> None:
        def leave() -> None:
            if self.has_left:
                return
            self._farewell = farewell
            self._loop.send(self._links(), encode(farewell))
            self._release()

        self._loop.call_and_wait(leave, _SEND_SECONDS)
        self._flush()

    def _flush(self) -> None:
        deadline = time.monotonic() + _SEND_SECONDS
        while any(link.is_pending for link in list(self._links())) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _break(self, error: BaseException) -> None:
        """An error of PLSC's in the loop: without it this rank would hear of nothing."""
        traceback.print_exception(type(error), error, error.__traceback__)
        self._reason = f"an error in the communication of rank {self.env.rank}: {reason_of(error)}"
        self.lingers = False
        self._failed.set()
        self._release()

    def _end_when_failed(self) -> None:
        self._failed.wait()
        self.ending.stop(self._reason, self.linger)

    @staticmethod
    def _start_thread(function: Callable[[], None], name: str) -> None:
        threading.Thread(target=function, daemon=True, name=name).start()
