"""How the ranks hear that one of them fails or dies: a connection from every rank to rank 0, open while they work.

Why sockets of our own: the kernel closes those of a process that dies, whatever kills it and whatever the others wait
in, so the end of a connection is the news. Nothing is polled, and a rank that computes for long is not taken for dead.
While a training runs, the connections also carry which step each rank has begun (plsc.parallel.stalls).
A machine that is gone closes nothing; the kernel's keep-alive packets find that within KEEPALIVE_SECONDS.
"""

from __future__ import annotations

import errno
import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

KEEPALIVE_SECONDS = 30
LOOPBACK = "127.0.0.1"
_HELLO_BYTES = 64  # of the first message: token and rank, padded
_MAX_UNKNOWN = 100  # connections of which nothing is known yet, more than there are ranks
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class FailureChannel:
    """The connections of one rank and a thread that listens to them.

    host: where the others reach rank 0. share(value): rank 0's value on every rank. on_failure(reason) is called
    once, by the thread, when another rank fails or goes without ``close``. Every rank makes its own at the same
    time. Raises OSError where a rank cannot be reached within ``seconds``.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        host: str,
        share: Callable[[Any], Any],
        on_failure: Callable[[str], None],
        seconds: float,
    ):
        self._rank = rank
        self._on_failure = on_failure
        self._known = threading.Event()
        self._closed = threading.Event()
        self._sending = threading.Lock()  # a line is whole, whoever sends at the same time
        self._on_step: Callable[[int, int], None] = lambda rank, step: None
        self._reason = ""
        meet = self._accept if rank == 0 else self._connect
        self._peers = meet(world_size, host, share, seconds)  # socket -> rank
        for peer in self._peers:
            _keep_alive(peer)
        threading.Thread(target=self._listen, daemon=True, name="plsc-failures").start()

    def report(self, message: str) -> None:
        """Tell the others why this rank fails. Nothing more is heard or said afterwards."""
        self._leave({"failed": f"rank {self._rank}: {message}"})

    def on_step(self, on_step: Callable[[int, int], None]) -> None:
        """on_step(rank, step) is called, by the thread, for what ``send_step`` of another rank says."""
        self._on_step = on_step

    def send_step(self, step: int) -> None:
        """Tell rank 0, or as rank 0 all others, which step this rank has begun."""
        for peer in list(self._peers):
            self._send(peer, {"step": step})

    def report_silent(self, reason: str) -> None:
        """Another rank fails without a word: as if it had said so, on every rank."""
        self._fail(None, {"failed": reason})

    def close(self) -> None:
        """Leave in peace."""
        self._leave({"bye": True})

    def failure_reason(self, seconds: float) -> str:
        """Why another rank has ended, waiting for the news for a while; empty if none comes."""
        self._known.wait(seconds)
        return self._reason

    def _accept(self, world_size: int, host: str, share: Callable, seconds: float) -> dict[socket.socket, int]:
        deadline = time.monotonic() + seconds
        with _listen_at(host, backlog=world_size + 64) as server:
            token = secrets.token_hex(16)
            share([server.getsockname()[1], token])
            return RankAcceptor(server, token, world_size).accept_all(deadline)

    def _connect(self, world_size: int, host: str, share: Callable, seconds: float) -> dict[socket.socket, int]:
        port, token = share(None)
        peer = socket.create_connection((host, port), timeout=seconds)
        peer.sendall(f"{token} {self._rank}".ljust(_HELLO_BYTES).encode())
        return {peer: 0}

    def _listen(self) -> None:
        rest: dict[socket.socket, bytes] = dict.fromkeys(self._peers, b"")
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                peer.setblocking(True)
                selector.register(peer, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    peer = cast(socket.socket, key.fileobj)
                    data = _receive_some(peer)
                    *lines, rest[peer] = (rest[peer] + data).split(b"\n")
                    for line in lines:
                        self._hear(peer, json.loads(line))
                    if not data:
                        selector.unregister(peer)
                        self._hear(peer, {"failed": f"rank {self._peers[peer]}: it has gone, killed or crashed"})
        for peer in self._peers:
            peer.close()

    def _hear(self, peer: socket.socket, news: dict[str, Any]) -> None:
        if "bye" in news:
            self._peers[peer] = -1
        elif "step" in news:
            self._on_step(self._peers[peer], news["step"])
        elif self._peers[peer] >= 0:
            self._fail(peer, news)

    def _fail(self, source: socket.socket | None, news: dict[str, Any]) -> None:
        if self._closed.is_set() or self._known.is_set():
            return
        self._reason = news["failed"]
        for other in self._peers:  # rank 0 passes it on
            if other is not source:
                self._send(other, news)
        self._known.set()
        threading.Thread(target=self._on_failure, args=(self._reason,), daemon=True, name="plsc-stop").start()

    def _leave(self, news: dict[str, Any]) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        for peer in self._peers:
            self._send(peer, news)
            try:
                peer.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the other one has gone before

    def _send(self, peer: socket.socket, news: dict[str, Any]) -> None:
        try:
            with self._sending:
                peer.sendall(json.dumps(news).encode() + b"\n")
        except OSError:
            pass  # one that is gone needs no news


class RankAcceptor:
    """Lets the other ranks in, who know the token. Strangers are heard beside them, and so delay nobody."""

    def __init__(self, server: socket.socket, token: str, world_size: int):
        self._server, self._token, self._ranks = server, token.encode(), set(range(1, world_size))
        self._most = _MAX_UNKNOWN + world_size
        self._received: dict[socket.socket, bytes] = {}  # what those have said who are not known yet
        self._peers: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()

    def accept_all(self, deadline: float) -> dict[socket.socket, int]:
        """The connections of all other ranks. Raises TimeoutError when the time is over."""
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ)
        try:
            while self._ranks - set(self._peers.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"ranks {sorted(self._ranks - set(self._peers.values()))} have not come")
                for key, _ in self._selector.select(left):
                    if key.fileobj is self._server:
                        self._accept()
                    elif key.fileobj in self._received:  # not forgotten a moment ago
                        self._hear(key.fileobj)
        except BaseException:
            for peer in self._peers:
                peer.close()
            raise
        finally:
            self._selector.close()
            for stranger in self._received:
                stranger.close()
        return self._peers

    def _accept(self) -> None:
        try:
            peer, _ = self._server.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._drop_oldest()
            return  # it comes again, or has gone
        peer.setblocking(False)
        if len(self._received) >= self._most:
            self._drop_oldest()
        self._received[peer] = b""
        self._selector.register(peer, selectors.EVENT_READ)

    def _hear(self, peer: socket.socket) -> None:
        try:
            data = peer.recv(_HELLO_BYTES - len(self._received[peer]))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        said = self._received[peer] = self._received[peer] + data
        if data and len(said) < _HELLO_BYTES:
            return
        words = said.split()
        known = len(words) == 2 and secrets.compare_digest(words[0], self._token) and words[1].isdigit()
        if known and int(words[1]) in self._ranks - set(self._peers.values()):
            self._selector.unregister(peer)
            del self._received[peer]
            peer.setblocking(True)
            self._peers[peer] = int(words[1])
        else:
            self._drop(peer)

    def _drop_oldest(self) -> None:
        """The stranger that has been silent longest, if there is one."""
        for stranger in list(self._received)[:1]:
            self._drop(stranger)

    def _drop(self, stranger: socket.socket) -> None:
        self._selector.unregister(stranger)
        del self._received[stranger]
        stranger.close()


def _listen_at(host: str, backlog: int) -> socket.socket:
    """A server at the address that the others use, not at all of the machine's; at all where ``host`` is a name, which
    may mean another address there, or an address that this machine has not itself, as in some containers."""
    address = LOOPBACK if host == "localhost" else host
    try:
        socket.inet_aton(address)
        return socket.create_server((address, 0), backlog=backlog)
    except OSError:
        return socket.create_server(("", 0), backlog=backlog)


def _receive_some(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except OSError:
        return b""


def _keep_alive(peer: socket.socket) -> None:
    third = KEEPALIVE_SECONDS // 3
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, third)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, third)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
