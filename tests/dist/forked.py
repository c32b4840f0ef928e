"""Ranks of a run as forks of one process that has Paddle loaded: a start costs a tenth of a second, not three.

A process that uses this must not have run any program before, because a fork does not take threads along.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.dist.launch import free_ports, launch_variables

GRACE_SECONDS = 1.5  # what is left to the other ranks when one has been killed
LIMIT_SECONDS = 120


def run(
    world_size: int, log_dir: Path, work: Callable[[int], None], lone: bool = False, limit: float = LIMIT_SECONDS
) -> list[int]:
    """Call ``work(rank)`` in ``world_size`` forks and return their exit codes (-9: killed by SIGKILL).

    When one has been killed the others have a moment to notice, then they are killed, as a launcher does; with
    ``lone`` they are left alone. One that ends by itself, with whatever code, does not hurry the others: how long they
    take to end depends on the load of the machine. The forks are one process group, so that ``os.killpg(0, ...)`` ends
    all of them. Those that are left after ``limit`` seconds are killed.
    """
    ports = free_ports(world_size)
    children: list[int] = []
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            _child(rank, world_size, ports, log_dir, work, children)
        os.setpgid(pid, children[0] if children else pid)
        children.append(pid)
    return _reap(children, lone, limit)


def _child(rank: int, world_size: int, ports: list[int], log_dir: Path, work, earlier: list[int]) -> None:
    code = 1
    try:
        os.setpgid(0, earlier[0] if earlier else 0)
        log = os.open(log_dir / f"rank{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if world_size > 1:
            os.environ.update(launch_variables(rank, ports))
        work(rank)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()  # where the ranks leave each other; the rest of an exit belongs to the parent
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reap(children: list[int], lone: bool, limit: float) -> list[int]:
    codes: dict[int, int] = {}
    deadline = time.monotonic() + limit
    while len(codes) < len(children):
        for pid in children:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                    if codes[pid] < 0 and not lone:
                        deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            for pid in children:
                if pid not in codes:
                    os.kill(pid, signal.SIGKILL)
            deadline += limit
        time.sleep(0.01)
    return [codes[pid] for pid in children]
