"""The ports on which a rank listens: those of Environment.ports (--port-range), or any."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection, Iterator

from plsc.errors import LaunchError

_LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
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
    if ports is not None:
        return next(free_ports(ports))
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def free_ports(ports: range, but: Collection[int] = ()) -> Iterator[int]:
    """Different ports of a range that are free at the moment, without those of ``but``; LaunchError at the end."""
    for port in _shuffled(ports):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        if port not in but:
            yield port
    raise _none_is_free(ports)


def outside_local_ports(ports: range) -> range | None:
    """The local ports of this machine, if some of them are not among ``ports``; see ``local_ports``."""
    local = local_ports()
    return local if set(local) - set(ports) else None


def advised_local_ports(ports: range) -> range:
    """What to set this machine's local ports to if only ``ports`` may be used: all but the first tenth, which is left
    for servers, since an outgoing connection may take any local port."""
    return ports[len(ports) // 10 :]


def local_ports() -> range:
    """The ports that Linux gives to outgoing connections, and to servers of libraries that do not choose one."""
    try:
        with open(_LOCAL_PORTS, encoding="ascii") as file:
            first, last = map(int, file.read().split())
    except (OSError, ValueError):
        return range(0)
    return range(first, last + 1)


def _shuffled(ports: range) -> list[int]:
    """In random order, so that the ranks of a machine rarely try the same port at the same time. Local ports come last:
    an outgoing connection may take one before the server listens for which it was chosen."""
    local = local_ports()
    return sorted(random.sample(ports, len(ports)), key=lambda port: port in local)


def _none_is_free(ports: range) -> LaunchError:
    return LaunchError(
        f"none of the ports {ports[0]}-{ports[-1]} (--port-range) is free on this machine: give a larger range"
    )
