"""What test_nodelay.py runs on every rank."""

from __future__ import annotations

import os
import socket

from plsc.parallel.group import connected_group


def waiting(env, payload) -> tuple[list[bool], list[bool]]:
    """Of the control connections of this rank, and of those with a store of Paddle: whether they hold small messages
    back."""
    group = connected_group(env)
    port = int(env.endpoints[0].rsplit(":", 1)[1])
    control = {name: held for name, (ports, held) in connections().items() if port in ports}
    before = set(connections())
    store = group.open_store(env)
    new = {name: held for name, (_, held) in connections().items() if name not in before}
    group.barrier()
    del store
    return list(control.values()), list(new.values())


def connections() -> dict[str, tuple[list[int], bool]]:
    """{descriptor: its two ports, whether it holds small messages back} of the TCP connections of this process."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as connection:
                ports = [connection.getsockname()[1], connection.getpeername()[1]]
                found[name] = ports, not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        except (OSError, IndexError):
            continue  # no socket of TCP, or one that listens
    return found
