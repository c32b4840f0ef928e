"""A non-blocking connection between two ranks: messages that wait until the socket takes them, and those received."""

from __future__ import annotations

import errno
import itertools
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from plsc.parallel.frames import Decoder, Limits

# A connection ends when the other machine has acknowledged nothing for so long. A cut of the network of 20 s is healed;
# after one that lasts, the ranks have ended within a minute.
CUT_SECONDS = 45
_PROBE_SECONDS = 5  # between two keep-alive packets of an idle connection
_PIECES = 16  # of one system call
_CUT = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


class Connection:
    """Used by one thread (plsc.parallel.loop). ``limits``: the longest message that the other side may send."""

    def __init__(self, socket_: socket.socket, limits: Limits):
        self.socket = socket_
        self.decoder = Decoder(limits)
        self.end_reason = "it was killed or crashed"  # what the end of the connection means
        self._pending: deque[memoryview] = deque()
        socket_.setblocking(False)
        set_options(socket_)

    @property
    def is_pending(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._pending)

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send a message; what the socket does not take now waits for ``flush``."""
        self._pending.extend(memoryview(piece) for piece in pieces)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it. A broken connection drops it: its end is received."""
        try:
            while self._pending:
                sent = self.socket.sendmsg(list(itertools.islice(self._pending, _PIECES)))
                while self._pending and sent >= len(self._pending[0]):
                    sent -= len(self._pending.popleft())
                if sent:
                    self._pending[0] = self._pending[0][sent:]
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)

    def receive(self) -> Iterator[tuple[dict[str, Any], bytes]] | None:
        """The messages that have come; None at the end of the connection. Raises NotAMessage, also when iterated."""
        try:
            data = self.socket.recv(2**18)
        except BlockingIOError:
            return iter(())
        except OSError as error:
            self._lost(error)
            return None
        return self.decoder.feed(data) if data else None

    def close(self) -> None:
        self._pending.clear()
        self.socket.close()

    def _lost(self, error: OSError) -> None:
        self._pending.clear()
        if error.errno in _CUT:
            self.end_reason = f"its machine, or the network between, has not answered for {CUT_SECONDS} s"


def set_options(socket_: socket.socket) -> None:
    """Send small messages at once; end the connection when the other machine is cut off for CUT_SECONDS."""
    socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
    socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, CUT_SECONDS // _PROBE_SECONDS)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # for data that are under way, which stop the keep-alive packets
        socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * CUT_SECONDS)
