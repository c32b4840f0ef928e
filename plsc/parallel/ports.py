"""The ports on which a rank listens: those of Environment.ports (--port-range), or any."""

from __future__ import annotations

import errno
import random
import socket

from plsc.errors import LaunchError

_SKIPPED = (errno.EADDRINUSE, errno.EACCES)  # of another process, or kept for one by the machine's settings


def listen(host: str, ports: range | None, backlog: int) -> socket.socket:
    """A server on ``host`` and a free port; "" listens on all addresses. Raises LaunchError if none of ``ports`` is
    free, OSError if this machine does not have the address."""
    if ports is None:
        return socket.create_server((host, 0), backlog=backlog)
    for port in _shuffled(ports):
        try:
            return socket.create_server((host, port), backlog=backlog)
        except OSError as error:
            if error.errno not in _SKIPPED:
                raise
    raise _none_is_free(ports)


def free_port(ports: range | None = None) -> int:
    """A port of this machine that is free at the moment, for a server of Paddle. Raises LaunchError if none is."""
    if ports is None:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return probe.getsockname()[1]
    for port in _shuffled(ports):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise _none_is_free(ports)


def _shuffled(ports: range) -> list[int]:
    """In random order, so that the ranks of a machine rarely try the same port at the same time."""
    return random.sample(ports, len(ports))


def _none_is_free(ports: range) -> LaunchError:
    return LaunchError(
        f"none of the ports {ports[0]}-{ports[-1]} (--port-range) is free on this machine: give a larger range"
    )
