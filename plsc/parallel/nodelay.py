"""Sets TCP_NODELAY for connections that a library has opened.

Paddle's key-value store writes each request in two or three pieces. With Nagle's algorithm, the default, the second
piece waits until the first is acknowledged, and the other side delays its acknowledgement by 40 ms.
"""

from __future__ import annotations

import os
import socket


def disable_nagle(port: int) -> None:
    """Set TCP_NODELAY for every TCP socket of this process with ``port`` on either end.

    A listening socket passes the setting on to the connections that it accepts later. Where it cannot be set,
    connections stay slow but work.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue  # closing a copy of a file's descriptor would release the locks on the file
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if port in _ports(connection):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            continue  # closed meanwhile


def _ports(connection: socket.socket) -> list[int]:
    """The local port, and the remote one if connected. Raises OSError for a socket without ports."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return []
    ports = [connection.getsockname()[1]]
    try:
        ports.append(connection.getpeername()[1])
    except OSError:
        pass  # it listens
    return ports
