"""Run a function on N ranks, each a real process with the variables that paddle.distributed.launch sets."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

from tests.dist import server
from tests.dist.launch import ROOT, free_ports, launch_variables, plain_environment

TIMEOUT = 900  # what takes 70 s alone takes minutes on a machine with ten other runs


def run(function: str, world_size: int, cwd: Path, payload=None, env: dict | None = None) -> list:
    """The results of ``module:function(env, payload)`` on each rank. A failing rank fails the test.

    The ranks are forks of one server, unless ``env`` sets what is read while Paddle is imported.
    """
    (cwd / "payload.pickle").write_bytes(pickle.dumps(payload))
    codes = call("tests.dist.worker:work", (function, str(cwd)), world_size, cwd, env)
    logs = [(cwd / f"rank{rank}.log").read_text(errors="replace")[-3000:] for rank in range(world_size)]
    assert codes == [0] * world_size, f"exit codes {codes}\n" + "\n".join(logs)
    return [pickle.loads((cwd / f"result{rank}.pickle").read_bytes()) for rank in range(world_size)]


def call(target: str, arguments: tuple[str, ...], world_size: int, cwd: Path, env: dict | None = None) -> list[int]:
    """The exit codes of ``module:function(*arguments)`` on each rank, whose output goes to ``cwd/rank<r>.log``."""
    forks = server.of_process(os.getpid())
    changes = forks.changes(plain_environment(env))
    if changes is None:  # a fork would come too late for them
        return wait(start([sys.executable, "-m", "tests.dist.worker", target, *arguments], world_size, cwd, env))
    for rank in range(world_size):
        (cwd / f"rank{rank}.log").write_bytes(b"")
    return forks.carry_out(server.Order(target, arguments, world_size, cwd, TIMEOUT, changes))


def start(command: list[str], world_size: int, cwd: Path, env: dict | None = None) -> list[subprocess.Popen]:
    """Start ``command`` once per rank; stdout and stderr go to ``cwd/rank<r>.log``."""
    ports = free_ports(world_size)
    processes = []
    for rank in range(world_size):
        variables = plain_environment(env)
        if world_size > 1:
            variables.update(launch_variables(rank, ports))
        with open(cwd / f"rank{rank}.log", "wb") as log:
            processes.append(subprocess.Popen(command, cwd=cwd, env=variables, stdout=log, stderr=log))
    return processes


def wait(processes: list[subprocess.Popen], timeout: float = TIMEOUT) -> list[int]:
    """Exit codes in the order of the ranks; kills what is left after ``timeout`` seconds (code -9)."""
    deadline = time.monotonic() + timeout
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
    return [process.wait() for process in processes]


__all__ = ["ROOT", "TIMEOUT", "call", "free_ports", "launch_variables", "run", "start", "wait"]
