"""What test_nodelay.py runs on every rank."""

from __future__ import annotations

import os
import socket

from plsc.parallel.group import connected_group
from plsc.parallel.side import SideGroup


def waiting(env, payload) -> tuple[list[bool], list[bool]]:
    """Of each connection of this rank with the store, before and after a second one is made: whether it holds small
    messages back."""
    group = connected_group(env)
    port = int(env.endpoints[0].rsplit(":", 1)[1])
    group.barrier()
    before = held_back(port)
    group.barrier()
    side = SideGroup(env, "side")
    side.barrier()  # rank 0 has accepted the connection of every rank
    after = held_back(port)
    group.barrier()
    return before, after


def held_back(port: int) -> list[bool]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if port in (connection.getsockname()[1], connection.getpeername()[1]):
                    found.append(not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        except (OSError, IndexError):
            continue  # no socket of TCP, or one that listens
    return found
