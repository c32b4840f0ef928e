"""The control connections on rank 0, which listens at its endpoint as long as the run lasts."""

from __future__ import annotations

import errno
import functools
import os
import resource
import secrets
import socket
import time
from collections.abc import Iterable
from typing import Any

from plsc.parallel.connection import Connection
from plsc.parallel.control import Control, Waiter
from plsc.parallel.environment import Environment
from plsc.parallel.frames import OF_RANK, OF_STRANGER, NotAMessage, encode
from plsc.parallel.gathers import Gathers, Key, texts
from plsc.parallel.hello import ENDED, claimed_rank, refusal
from plsc.parallel.naming import host_of, name_ranks

BIND_SECONDS = 10.0  # for a process of the previous run that is about to end
LOOPBACK = "127.0.0.1"
_MAX_STRANGERS = 100  # connections that have not said who they are, in addition to the number of ranks
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MOST_REFUSALS = 5  # that are printed


class Hub(Control):
    """Accepts the connections of the other ranks, collects and distributes what they exchange, and forwards failures.

    Connections that do not begin with the hello of a rank of this run change nothing, at whatever time they come.
    """

    def __init__(self, env: Environment):
        super().__init__(env)
        self._peers: dict[Connection, int] = {}
        self._strangers: dict[Connection, None] = {}
        self._known: dict[int, str] = {}  # rank -> who it is; the first claim of a rank counts
        self._gone: set[int] = set()  # ranks that have said that they end
        self._told: set[int] = set()  # ranks that know of the failure
        self._gathers = Gathers(env.world_size)
        self._max_strangers = _MAX_STRANGERS + env.world_size
        self._refusals = 0
        allow_files(env.world_size)
        self._start_thread(self.listen, "plsc-listen")

    def listen(self) -> None:
        """Listen at the endpoint of rank 0, as soon as its port is free."""
        endpoint, deadline = self.env.endpoints[0], time.monotonic() + BIND_SECONDS
        while True:
            try:
                self._server = listen_at(endpoint, self.env.world_size + 64)
                return self._loop.call(lambda: self._loop.serve(self._server, self._accept))
            except OSError as error:
                problem = f"rank 0 cannot listen at {endpoint}, the address of the run: {os.strerror(error.errno or 0)}"
            if time.monotonic() > deadline:
                text = f"{problem}; end the program that uses the port, or start the ranks with another one"
                return self._loop.call(functools.partial(self._cannot_join, text))
            time.sleep(0.2)

    def await_others(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(self._gone) < len(self._known) and time.monotonic() < deadline:
            time.sleep(0.005)

    def untold(self) -> str:
        if not self._failed.is_set() and "failed" not in (self._farewell or {}):
            return ""
        missing = [rank for rank in range(1, self.env.world_size) if rank not in self._told | self._gone]
        return name_ranks(missing, self.env.endpoints) if missing and not self._unusable else ""

    def _links(self) -> Iterable[Connection]:
        return self._peers

    def _offer(self, key: Key, body: bytes, first_only: bool) -> None:
        self._collect(key, 0, body, first_only)

    def _collect(self, key: Key, rank: int, body: bytes, first_only: bool) -> None:
        answer = self._gathers.add(key, rank, body, first_only)
        if answer is not None:
            self._loop.send(self._peers, encode(*answer))
            self._finish(key, texts(*answer))
        else:
            self._check_gone()

    def _check_gone(self) -> None:
        """A rank that has left will not come to what others wait for."""
        if self._gone and self._gathers.waiting():
            self._fail(f"rank {min(self._gone)}: its program has ended before those of the other ranks")

    def _ask(self, key: Key, waiter: Waiter) -> None:
        waiter.missing = self._describe(key)
        waiter.told.set()

    def _describe(self, key: Key) -> str:
        missing = self._gathers.missing(key)
        away = [rank for rank in missing if rank and rank not in self._known]
        busy = [rank for rank in missing if rank not in away]
        groups = {"not started yet, or without a way to rank 0": away, "started, but not as far as this rank": busy}
        return "; ".join(f"{name_ranks(ranks, self.env.endpoints)}, {what}" for what, ranks in groups.items() if ranks)

    def _fail(self, reason: str, source: Connection | None = None) -> None:
        super()._fail(reason, source)
        if self._failed.is_set():
            self._told |= set(self._peers.values())

    def _leave(self, farewell: dict[str, Any]) -> None:
        super()._leave(farewell)
        self._told |= set(self._peers.values())

    def _accept(self) -> None:
        try:
            peer, _ = self._server.accept()
        except OSError as error:
            if error.errno in _NO_ROOM and not self._drop_oldest():
                time.sleep(0.05)  # every file is in use
            return  # the client tries again, or is gone
        if len(self._strangers) >= self._max_strangers:
            self._drop_oldest()
        connection = Connection(peer, OF_STRANGER)
        self._strangers[connection] = None
        self._loop.add(connection, self._read)

    def _drop_oldest(self) -> bool:
        """Drop the connection that has not said who it is for the longest time; False if there is none."""
        for connection in list(self._strangers)[:1]:
            self._drop(connection)
            return True
        return False

    def _drop(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        self._peers.pop(connection, None)
        self._loop.remove(connection)

    def _read(self, connection: Connection) -> None:
        try:
            messages = connection.receive()
            for header, body in () if messages is None else messages:
                if connection in self._strangers:
                    self._meet(connection, header)
                elif connection in self._peers:
                    self._handle(connection, self._peers[connection], header, body)
        except NotAMessage:
            messages, connection.end_reason = None, "it has sent what is not a message of PLSC"
        if messages is None:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        rank = self._peers.get(connection)
        if rank is not None or connection in self._strangers:
            self._drop(connection)
        if rank is not None and rank not in self._gone:
            self._gone.add(rank)
            self._fail(f"rank {rank}: {connection.end_reason}")

    def _meet(self, connection: Connection, header: dict[str, Any]) -> None:
        """The first message of a connection."""
        if "plsc" not in header:
            return self._drop(connection)
        reason, rank = refusal(header, self.env), claimed_rank(header)
        who = f"process {str(header.get('process'))[:10]} on {str(header.get('host'))[:100]}"
        if not reason and ENDED in header:
            return self._hear_end(connection, rank, who, str(header[ENDED]))
        if not reason and rank in self._known:
            reason = f"rank {rank} is there already: {self._known[rank]}; start each rank once"
        if reason:
            if self._refusals < _MOST_REFUSALS:
                self._refusals += 1
                self.say(f"it has refused {who}, which wants to be rank {rank}: {reason}")
            connection.send(encode({"refused": reason}))
            return self._drop(connection)
        del self._strangers[connection]
        connection.decoder.limits = OF_RANK
        self._peers[connection], self._known[rank] = rank, who
        self._loop.send([connection], encode({"welcome": secrets.token_hex(4)}))
        if self._failed.is_set() or self.has_left:
            self._loop.send([connection], encode({"failed": self._reason} if self._reason else self._farewell or {}))
            self._told.add(rank)

    def _hear_end(self, connection: Connection, rank: int, who: str, reason: str) -> None:
        """The launcher of a rank says that it has ended, which is news if it never was connected."""
        if rank not in self._known:
            self._known[rank] = who
            self._gone.add(rank)
            self._fail(f"rank {rank}: {reason}")
        connection.send(encode({"heard": True}))
        self._drop(connection)

    def _handle(self, connection: Connection, rank: int, header: dict[str, Any], body: bytes) -> None:
        if "gather" in header:
            self._collect((header["gather"], header["call"]), rank, body, header["first"])
        elif "who" in header:
            key = header["who"], header["call"]
            self._loop.send([connection], encode({"missing": self._describe(key), "of": header["who"], "call": key[1]}))
        elif "step" in header:
            self._on_step(rank, header["step"])
        elif "failed" in header:
            self._gone.add(rank)
            self._fail(header["failed"], connection)
        elif "bye" in header:
            self._gone.add(rank)
            self._check_gone()


def listen_at(endpoint: str, backlog: int) -> socket.socket:
    """A server at an endpoint. It listens on all addresses where the host is a name, which may resolve to another
    address on other machines, or an address that this machine does not have, as in some containers."""
    host, port = host_of(endpoint), int(endpoint.rsplit(":", 1)[1])
    address = LOOPBACK if host == "localhost" else host
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        socket.inet_pton(family, address)
        return socket.create_server((address, port), family=family, backlog=backlog)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise
        return socket.create_server(("", port), backlog=backlog)


def allow_files(world_size: int) -> None:
    """Raise the limit of open files of this process, usually 1024, where a connection with every rank needs more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 2 * world_size + 512
    if soft != resource.RLIM_INFINITY and soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need if hard == resource.RLIM_INFINITY else min(need, hard), hard))
