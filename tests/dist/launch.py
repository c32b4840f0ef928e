"""What a rank finds in its environment, and ports of its own, however many tests run at once."""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Below those that Linux gives to connections (32768 and up), so that none of them takes a port before a rank does.
FIRST_PORT, BLOCK, BLOCKS = 12000, 200, 100
# What plsc and Paddle set in a process that begins to use them: a rank sets it for itself, unless it was set before.
SET_IN_PROCESS = ("CUSTOM_DEVICE_ROOT", "GLOG_minloglevel", "MKL_DEBUG_CPU_TYPE")
AT_THE_START = {name: os.environ[name] for name in SET_IN_PROCESS if name in os.environ}


def launch_variables(rank: int, ports: list[int]) -> dict[str, str]:
    """What the launcher would set for ``rank`` of ``len(ports)``."""
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    return {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(ports)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
    }


def plain_environment(more: dict | None = None) -> dict[str, str]:
    """This process's environment for a rank: without a launcher's variables, one thread, the checkout's plsc.

    It is the same whatever ran in this process before, so that ranks are forks (see `tests.dist.server`).
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name in (*launch_variables(0, [0]), *SET_IN_PROCESS):
        variables.pop(name, None)
    return {**variables, **AT_THE_START, **(more or {})}


def free_ports(count: int) -> list[int]:
    """Different TCP ports that are free now, and that no other process of the tests will choose."""
    return _ports_of_process(os.getpid()).take(count)


@functools.cache
def _ports_of_process(pid: int) -> Ports:
    """A fork must not go on with what its parent claimed, so the number of the process is part of the key."""
    return Ports()


class Ports:
    """A block of ports that is this process's as long as it lives: a locked file says so to the others."""

    def __init__(self):
        folder = Path(tempfile.gettempdir()) / f"plsc_test_ports_{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for number in range(BLOCKS):
            self._claim = open(folder / str(number), "w")
            try:
                fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._claim.close()
                continue
            self._first, self._next = FIRST_PORT + BLOCK * number, 0
            return
        raise RuntimeError(f"all {BLOCKS} blocks of ports are claimed, see {folder}")

    def take(self, count: int) -> list[int]:
        """The next ``count`` of the block on which nobody listens; after the last comes the first again."""
        found: list[int] = []
        for _ in range(BLOCK):
            if len(found) == count:
                return found
            port = self._first + self._next
            self._next = (self._next + 1) % BLOCK
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", port))
                except OSError:
                    continue
                found.append(port)
        raise RuntimeError(f"fewer than {count} ports are free from {self._first} on")
