"""The thread that reads and writes the connections of a rank. All state of the connections belongs to it alone."""

from __future__ import annotations

import functools
import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable

from plsc.parallel.connection import Connection

TICK_SECONDS = 5.0
_IN, _OUT = selectors.EVENT_READ, selectors.EVENT_WRITE


class Loop:
    """Calls ``on_readable(connection)`` for connections with data, functions of other threads (``call``), and
    ``on_tick()`` every TICK_SECONDS.

    on_error(error) is called when one of them raises, after which the thread ends.
    """

    def __init__(self, on_tick: Callable[[], None], on_error: Callable[[BaseException], None]):
        self._on_tick, self._on_error = on_tick, on_error
        self._calls: deque[Callable[[], None]] = deque()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        self._selector.register(self._woken, _IN, lambda mask: self._drain())
        os.register_at_fork(after_in_child=functools.partial(_forget, weakref.ref(self)))
        threading.Thread(target=self._run, daemon=True, name="plsc-control").start()

    def call(self, function: Callable[[], None]) -> None:
        """Call ``function()`` in the thread, soon. From any thread."""
        self._calls.append(function)
        try:
            self._wake.send(b"x")
        except BlockingIOError:
            pass  # it is awake already

    def call_and_wait(self, function: Callable[[], None], seconds: float) -> bool:
        """Call ``function()`` in the thread; whether it has returned within ``seconds``. From any other thread."""
        done = threading.Event()

        def then_tell() -> None:
            function()
            done.set()

        self.call(then_tell)
        return done.wait(seconds)

    def serve(self, server: socket.socket, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable()`` when a connection can be accepted."""
        server.setblocking(False)
        self._selector.register(server, _IN, lambda mask: on_readable())

    def add(self, connection: Connection, on_readable: Callable[[Connection], None]) -> None:
        def handle(mask: int) -> None:
            if mask & _OUT:
                connection.flush()
                self._update(connection)
            if mask & _IN:
                on_readable(connection)

        self._selector.register(connection.socket, _IN, handle)

    def send(self, connections: Iterable[Connection], pieces: Iterable[bytes]) -> None:
        """Send a message on each connection, as fast as it takes it."""
        pieces = list(pieces)
        for connection in connections:
            connection.send(pieces)
            self._update(connection)

    def remove(self, connection: Connection) -> None:
        """Close the connection."""
        self._selector.unregister(connection.socket)
        connection.close()

    def forget(self) -> None:
        """Close all files in a fork of this process: a fork that outlives it would keep its connections open, so that
        nobody noticed its end, and its port. The connections themselves are not ended."""
        for key in list((self._selector.get_map() or {}).values()):  # None in the fork of a fork
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._wake.close()
        self._selector.close()

    def _update(self, connection: Connection) -> None:
        wanted = _IN | _OUT if connection.is_pending else _IN
        key = self._selector.get_key(connection.socket)
        if key.events != wanted:
            self._selector.modify(connection.socket, wanted, key.data)

    def _drain(self) -> None:
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            pass

    def _run(self) -> None:
        tick = time.monotonic() + TICK_SECONDS
        try:
            while True:
                if time.monotonic() >= tick:
                    tick = time.monotonic() + TICK_SECONDS
                    self._on_tick()
                for key, mask in self._selector.select(max(0.0, tick - time.monotonic())):
                    now = self._selector.get_map().get(key.fd)
                    if now is not None and now.fileobj is key.fileobj:  # not removed a moment ago
                        key.data(mask)
                while self._calls:
                    self._calls.popleft()()
        except BaseException as error:
            self._on_error(error)


def _forget(loop: weakref.ref[Loop]) -> None:
    found = loop()
    if found is not None:
        found.forget()
