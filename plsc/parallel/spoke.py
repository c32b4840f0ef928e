"""The control connection of a rank other than 0."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

from plsc.parallel.connection import Connection
from plsc.parallel.control import Control, Waiter
from plsc.parallel.environment import Environment
from plsc.parallel.frames import Limits, NotAMessage, encode
from plsc.parallel.gathers import Key, texts
from plsc.parallel.hello import hello
from plsc.parallel.naming import host_of

_OF_HUB = Limits(2**24, 2**40)  # the values of all ranks
_CONNECT_SECONDS = 5.0
_PAUSES = (0.05, 1.0)  # before the next attempt to connect, from and to
# After which a program that answers in the place of rank 0, but not as one, is not waited for any longer. If rank 0 has
# started it has ended meanwhile (BIND_SECONDS); who only closes connections may be a proxy of a rank 0 that is to come.
STRANGER_SECONDS = 40.0


class Spoke(Control):
    """Connects to rank 0, again and again until it answers, and speaks for this rank."""

    def __init__(self, env: Environment):
        super().__init__(env)
        self._where = env.endpoints[0]
        self._connection: Connection | None = None
        self._welcome = False
        self._hub_left = False
        self._offers: dict[Key, list[bytes]] = {}  # made before rank 0 has answered
        self._trouble = "has not been reached yet"
        self._strange_since: float | None = None  # when another program began to answer there
        self._wanted = threading.Event()  # a connection
        self._wanted.set()
        self._start_thread(self.keep_connecting, "plsc-connect")

    def keep_connecting(self) -> None:
        """Connect whenever a connection is wanted, until rank 0 has answered."""
        pause = _PAUSES[0]
        while True:
            self._wanted.wait()
            if self._welcome or self._unusable or "bye" in (self._farewell or {}):
                return
            try:
                made = connect(self._where)
            except (OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
                self._trouble = f"cannot be reached: {getattr(error, 'strerror', None) or error}"
                self._strange_since = None
            else:
                self._wanted.clear()
                self._loop.call(functools.partial(self._take, made))
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def untold(self) -> str:
        if "failed" not in (self._farewell or {}) or self._welcome or self._failed.is_set() or self._unusable:
            return ""
        return f"rank 0 ({self._where}), which {self._trouble},"

    def _take(self, made: socket.socket) -> None:
        self._connection = Connection(made, _OF_HUB)
        self._trouble = "does not answer"
        self._loop.add(self._connection, self._read)
        self._loop.send([self._connection], encode(hello(self.env)))

    def _links(self) -> Iterable[Connection]:
        return [self._connection] if self._connection is not None and self._welcome else []

    def _offer(self, key: Key, body: bytes, first_only: bool) -> None:
        message = encode({"gather": key[0], "call": key[1], "first": first_only}, b"" if first_only else body)
        if self._hub_left:
            self._end_of_hub()
        elif self._welcome:
            self._loop.send(self._links(), message)
        else:
            self._offers[key] = message

    def _ask(self, key: Key, waiter: Waiter) -> None:
        if self._welcome:
            return self._loop.send(self._links(), encode({"who": key[0], "call": key[1]}))
        waiter.missing = f"rank 0 ({self._where}), which {self._trouble}"
        waiter.told.set()

    def _read(self, connection: Connection) -> None:
        try:
            messages = connection.receive()
            for header, body in () if messages is None else messages:
                self._handle(header, body)
        except NotAMessage:
            connection.end_reason = "it has sent what is not a message of PLSC"
            return self._end(connection, is_strange=True)
        if messages is None:
            self._end(connection)

    def _end(self, connection: Connection, is_strange: bool = False) -> None:
        self._loop.remove(connection)
        self._connection = None
        if not self._welcome:
            self._not_rank_0(is_strange)
            self._wanted.set()
        elif not self._hub_left:
            self._fail(f"rank 0: {connection.end_reason}")

    def _not_rank_0(self, is_strange: bool) -> None:
        """What answered was another program, or, unless it ``is_strange``, a rank 0 without room for connections."""
        if not is_strange:
            self._trouble, self._strange_since = "has closed the connection; another program may listen there", None
            return
        self._trouble = "does not answer as a rank 0; another program listens there"
        now = time.monotonic()
        self._strange_since = self._strange_since or now
        if now - self._strange_since >= STRANGER_SECONDS:
            self._cannot_join(
                f"another program listens at {self._where}, the address of the run: for {STRANGER_SECONDS:g} s it has "
                "answered in the place of rank 0; end that program, or start the ranks with another port"
            )

    def _end_of_hub(self) -> None:
        self._fail("rank 0: its program has ended before those of the other ranks")

    def _handle(self, header: dict[str, Any], body: bytes) -> None:
        if "gathered" in header:
            self._finish((header["gathered"], header["call"]), texts(header, body))
        elif "welcome" in header:
            self._joins()
        elif "missing" in header:
            waiter = self._waiters.get((header["of"], header["call"]))
            if waiter is not None:
                waiter.missing = header["missing"]
                waiter.told.set()
        elif "step" in header:
            self._on_step(0, header["step"])
        elif "failed" in header:
            self._fail(header["failed"], self._connection)
            self._hub_left = True
        elif "bye" in header:
            self._hub_left = True
            if self._waiters:
                self._end_of_hub()
        elif "refused" in header:
            self._cannot_join(f"rank 0 at {self._where} has refused rank {self.env.rank}: {header['refused']}")

    def _joins(self) -> None:
        """Rank 0 has accepted this rank: send what has been waiting for that."""
        self._welcome = True
        self._wanted.set()  # the thread that connects may end
        for message in self._offers.values():
            self._loop.send(self._links(), message)
        self._offers.clear()
        if self._farewell is not None:
            self._loop.send(self._links(), encode(self._farewell))


def connect(endpoint: str) -> socket.socket:
    """A connection with the program that listens at an endpoint. Raises OSError."""
    made = socket.create_connection((host_of(endpoint), int(endpoint.rsplit(":", 1)[1])), timeout=_CONNECT_SECONDS)
    if made.getsockname() == made.getpeername():  # a port without a server may connect with itself
        made.close()
        raise ConnectionRefusedError("Connection refused")
    return made
