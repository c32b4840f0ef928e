"""Processes that a bench starts: the ranks of a case, and the same work in PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_ranks(bench: str, case: dict) -> list[dict]:
    """What each of ``case["ranks"]`` processes prints last; each runs the case with its number as ``rank``.

    They share the case's threads. None of them outlives the call; where one fails, this process ends with its words.
    """
    from plsc.parallel.ports import free_port

    ports: set[int] = set()
    while len(ports) < case["ranks"]:
        ports.add(free_port())
    endpoints = [f"127.0.0.1:{port}" for port in sorted(ports)]
    processes = [_start_rank(bench, case, rank, endpoints) for rank in range(case["ranks"])]
    results = []
    try:
        for process in processes:
            out, error = process.communicate()
            if process.returncode:
                sys.exit(error[-2000:])
            results.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
    return results


def _start_rank(bench: str, case: dict, rank: int, endpoints: list[str]) -> subprocess.Popen:
    threads = max(1, case["threads"] // case["ranks"])
    own = json.dumps({**case, "rank": rank, "threads": threads})
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if len(endpoints) > 1:
        environment.update({
            "PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(len(endpoints)),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints), "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        })  # fmt: skip
    command = [sys.executable, str(HERE.parent / "bench.py"), bench, "--case", own]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run_torch(script: str, python: str, case: dict, environment: dict[str, str] | None = None) -> dict:
    """What ``script`` beside this file prints last for the case, run by a Python that has PyTorch."""
    command = [python, str(HERE / script), json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        sys.exit(f"{python}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
