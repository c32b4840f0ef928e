"""Reports the failure or death of a rank to all others: a connection from every rank to rank 0, open during a run.

The kernel closes the sockets of a process that dies, whatever the reason and whatever the other ranks wait for, so the
end of a connection means the end of a rank. Nothing is polled, and a rank that computes for a long time is not taken
for dead. During training the connections also carry the step that each rank has begun (plsc.parallel.stalls). A machine
that loses power closes nothing; the kernel's keep-alive packets detect that within KEEPALIVE_SECONDS.
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
_MAX_UNKNOWN = 100  # unidentified connections, in addition to the number of ranks
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class FailureChannel:
    """The connections of one rank, and a thread that reads them.

    host: the address of rank 0 for the others. share(value): rank 0's value on every rank. on_failure(reason) is called
    once, by the thread, when another rank fails or ends without ``close``. All ranks create it at the same time. Raises
    OSError where a rank does not connect within ``seconds``.
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
        self._failed = threading.Event()
        self._closed = threading.Event()
        self._sending = threading.Lock()  # lines of several threads must not mix
        self._on_step: Callable[[int, int], None] = lambda rank, step: None
        self._reason = ""
        open_connections = self._accept if rank == 0 else self._connect
        self._peers = open_connections(world_size, host, share, seconds)  # socket -> rank
        for peer in self._peers:
            _keep_alive(peer)
        threading.Thread(target=self._listen, daemon=True, name="plsc-failures").start()

    def report(self, message: str) -> None:
        """Report to the others why this rank fails. Nothing is sent or received afterwards."""
        self._leave({"failed": f"rank {self._rank}: {message}"})

    def on_step(self, on_step: Callable[[int, int], None]) -> None:
        """Call on_step(rank, step), in the thread, for each ``send_step`` of another rank."""
        self._on_step = on_step

    def send_step(self, step: int) -> None:
        """Send the step that this rank has begun to rank 0, or from rank 0 to all others."""
        for peer in list(self._peers):
            self._send(peer, {"step": step})

    def report_silent(self, reason: str) -> None:
        """Report the failure of another rank that has not reported it itself."""
        self._fail(None, {"failed": reason})

    def close(self) -> None:
        """Close without failure."""
        self._leave({"bye": True})

    def failure_reason(self, seconds: float) -> str:
        """Why another rank has ended, waiting for a report for ``seconds``; an empty string if there is none."""
        self._failed.wait(seconds)
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
                        self._handle(peer, json.loads(line))
                    if not data:
                        selector.unregister(peer)
                        self._handle(peer, {"failed": f"rank {self._peers[peer]}: it was killed or crashed"})
        for peer in self._peers:
            peer.close()

    def _handle(self, peer: socket.socket, message: dict[str, Any]) -> None:
        if "bye" in message:
            self._peers[peer] = -1
        elif "step" in message:
            self._on_step(self._peers[peer], message["step"])
        elif self._peers[peer] >= 0:
            self._fail(peer, message)

    def _fail(self, source: socket.socket | None, message: dict[str, Any]) -> None:
        if self._closed.is_set() or self._failed.is_set():
            return
        self._reason = message["failed"]
        for other in self._peers:  # rank 0 forwards it
            if other is not source:
                self._send(other, message)
        self._failed.set()
        threading.Thread(target=self._on_failure, args=(self._reason,), daemon=True, name="plsc-stop").start()

    def _leave(self, message: dict[str, Any]) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        for peer in self._peers:
            self._send(peer, message)
            try:
                peer.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the other rank has closed first

    def _send(self, peer: socket.socket, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                peer.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass  # the other rank is gone


class RankAcceptor:
    """Accepts the connections of the other ranks, which know the token. Foreign connections cannot delay them."""

    def __init__(self, server: socket.socket, token: str, world_size: int):
        self._server, self._token, self._ranks = server, token.encode(), set(range(1, world_size))
        self._max_unknown = _MAX_UNKNOWN + world_size
        self._received: dict[socket.socket, bytes] = {}  # bytes so far of connections that are not identified yet
        self._peers: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()

    def accept_all(self, deadline: float) -> dict[socket.socket, int]:
        """The connections of all other ranks. Raises TimeoutError at the deadline."""
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ)
        try:
            while self._ranks - set(self._peers.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"ranks {sorted(self._ranks - set(self._peers.values()))} have not connected")
                for key, _ in self._selector.select(left):
                    if key.fileobj is self._server:
                        self._accept()
                    elif key.fileobj in self._received:  # not dropped a moment ago
                        self._receive(key.fileobj)
        except BaseException:
            for peer in self._peers:
                peer.close()
            raise
        finally:
            self._selector.close()
            for peer in self._received:
                peer.close()
        return self._peers

    def _accept(self) -> None:
        try:
            peer, _ = self._server.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._drop_oldest()
            return  # the client tries again, or is gone
        peer.setblocking(False)
        if len(self._received) >= self._max_unknown:
            self._drop_oldest()
        self._received[peer] = b""
        self._selector.register(peer, selectors.EVENT_READ)

    def _receive(self, peer: socket.socket) -> None:
        try:
            data = peer.recv(_HELLO_BYTES - len(self._received[peer]))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        hello = self._received[peer] = self._received[peer] + data
        if data and len(hello) < _HELLO_BYTES:
            return
        words = hello.split()
        known = len(words) == 2 and secrets.compare_digest(words[0], self._token) and words[1].isdigit()
        if known and int(words[1]) in self._ranks - set(self._peers.values()):
            self._selector.unregister(peer)
            del self._received[peer]
            peer.setblocking(True)
            self._peers[peer] = int(words[1])
        else:
            self._drop(peer)

    def _drop_oldest(self) -> None:
        """Drop the oldest unidentified connection, if there is one."""
        for peer in list(self._received)[:1]:
            self._drop(peer)

    def _drop(self, peer: socket.socket) -> None:
        self._selector.unregister(peer)
        del self._received[peer]
        peer.close()


def _listen_at(host: str, backlog: int) -> socket.socket:
    """A server on the address that the other ranks use. It listens on all addresses where ``host`` is a name, which may
    resolve to another address on other machines, or an address that this machine does not have, as in some
    containers."""
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
