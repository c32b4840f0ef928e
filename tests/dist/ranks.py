"""Run a function on N ranks, each a real process with the variables that paddle.distributed.launch sets."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 600  # what takes 70 s alone takes minutes on a machine with ten other runs


def launch_variables(rank: int, ports: list[int]) -> dict[str, str]:
    """What the launcher would set for ``rank`` of ``len(ports)``."""
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    return {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(ports)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
    }


def free_ports(count: int) -> list[int]:
    """Different TCP ports that are free on this machine now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]


def start(command: list[str], world_size: int, cwd: Path, env: dict | None = None) -> list[subprocess.Popen]:
    """Start ``command`` once per rank; stdout and stderr go to ``cwd/rank<r>.log``."""
    ports = free_ports(world_size)
    processes = []
    for rank in range(world_size):
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})}
        for name in launch_variables(0, [0]):
            variables.pop(name, None)
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


def run(function: str, world_size: int, cwd: Path, payload=None, env: dict | None = None) -> list:
    """The results of ``module:function(rank, world_size, payload)`` on each rank. A failing rank fails the test."""
    (cwd / "payload.pickle").write_bytes(pickle.dumps(payload))
    processes = start([sys.executable, "-m", "tests.dist.worker", function, str(cwd)], world_size, cwd, env)
    codes = wait(processes)
    logs = [(cwd / f"rank{rank}.log").read_text(errors="replace")[-3000:] for rank in range(world_size)]
    assert codes == [0] * world_size, f"exit codes {codes}\n" + "\n".join(logs)
    return [pickle.loads((cwd / f"result{rank}.pickle").read_bytes()) for rank in range(world_size)]
