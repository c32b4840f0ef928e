"""Small messages go out at once: TCP_NODELAY for connections that are made inside of a library.

Paddle's key-value store writes each request in two or three pieces. With Nagle's algorithm, which is on unless a
program turns it off, the second waits until the first is acknowledged, and the other side acknowledges 40 ms late.
"""

from __future__ import annotations

import os
import socket


def disable_nagle(port: int) -> None:
    """Turn the waiting off for every TCP socket of this process with ``port`` on either end.

    A listening socket hands the setting to the connections that it accepts later. What cannot be set stays slow; no
    message depends on it.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue  # to close a copy of a file's descriptor would drop the locks on the file
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if port in _ports(connection):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            continue  # closed meanwhile


def _ports(connection: socket.socket) -> list[int]:
    """Own port, and that of the other end if there is one. Raises OSError for what has none."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return []
    ports = [connection.getsockname()[1]]
    try:
        ports.append(connection.getpeername()[1])
    except OSError:
        pass  # it listens
    return ports
