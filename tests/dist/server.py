"""One process with Paddle loaded that has run nothing, and forks ranks on request: what `tests.dist.ranks` starts once.

A fork costs a tenth of a second; a new interpreter imports for two. The server itself never runs a program, as a fork
does not take threads along.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from tests import short_stacks
from tests.dist import forked, worker
from tests.dist.launch import ROOT, plain_environment

# Variables that nothing reads while Paddle is imported; where others differ it takes a new interpreter.
READ_LATER = ("AWS_", "NO_PROXY", "PLSC_", "PYTEST_", "XDG_")


@dataclass
class Order:
    """Call ``module:function(*arguments)`` in each of ``world_size`` forks, which write to ``cwd/rank<r>.log``."""

    target: str
    arguments: tuple[str, ...]
    world_size: int
    cwd: Path
    limit: float  # seconds
    changes: dict[str, str | None]  # of the environment; None: not set


class Server:
    """This process's server: started by the first order."""

    def __init__(self):
        self.environment = plain_environment()
        self._connection, theirs = Pipe()
        command = [sys.executable, "-m", "tests.dist.server", str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, env=self.environment, pass_fds=[theirs.fileno()])
        theirs.close()
        atexit.register(self.close)

    def changes(self, environment: Mapping[str, str]) -> dict[str, str | None] | None:
        """What makes ``environment`` of the server's own; None where a fork would come too late for that."""
        names = {*environment, *self.environment}
        found = {name: environment.get(name) for name in names if environment.get(name) != self.environment.get(name)}
        return found if all(name.startswith(READ_LATER) for name in found) else None

    def carry_out(self, order: Order) -> list[int]:
        """The exit codes in the order of the ranks, as of `tests.dist.forked.run`."""
        try:
            self._connection.send(order)
            if not self._connection.poll(order.limit + 60):
                raise TimeoutError(f"no answer to {order}")
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError("the server of tests.dist.server has ended; its stderr says why") from error

    def close(self) -> None:
        self._connection.close()
        self._process.wait()


@functools.cache
def of_process(pid: int) -> Server:
    """The server of the process ``pid``, which is this one: a fork of it gets its own."""
    return Server()


def end_with_parent() -> None:
    """A test run that is killed leaves no rank behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    end_with_parent()
    short_stacks.use()
    import plsc.engine.actions  # noqa: F401  plsc comes first, see plsc.backend.paddle_version.load_zlib

    # isort: split
    import paddle

    from plsc.backend import static
    from plsc.backend.paddle_version import end_when_crashed

    paddle.enable_static()
    end_when_crashed()
    # Paddle 2.6 starts one thread when it is imported, which sleeps; ranks do as well without it.
    threads = len(os.listdir("/proc/self/task")) - (not static.is_pir())
    assert threads == 1, f"{threads} threads: forks would lack all but one"
    gc.collect()
    gc.freeze()  # a collection in a fork would go over all that Paddle has made here, 0.1 s for each run
    connection = Connection(int(sys.argv[1]))
    while True:
        try:
            order = connection.recv()
        except EOFError:
            return

        def work(rank: int, order=order) -> None:
            end_with_parent()
            connection.close()
            os.chdir(order.cwd)
            for name, value in order.changes.items():
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})
            worker.call(order.target, *order.arguments)

        connection.send(forked.run(order.world_size, order.cwd, work, lone=True, limit=order.limit))


if __name__ == "__main__":
    main()
