"""A cable that is pulled for 20 seconds ends no run, one that stays away ends it within a minute, on both sides."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.dist.launch import ROOT
from tests.hosts.hosts import HostProcess, Hosts

SHORT_SECONDS, LONG_SECONDS = 20, 60


def start(hosts: Hosts, folder: Path) -> list[HostProcess]:
    """One rank on each host, which share ``folder``."""
    endpoints = [f"{hosts.address(host)}:6180" for host in range(1, hosts.count + 1)]
    found = []
    for rank, endpoint in enumerate(endpoints):
        variables = {
            "PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(len(endpoints)), "PYTHONPATH": str(ROOT),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints), "PADDLE_CURRENT_ENDPOINT": endpoint,
        }  # fmt: skip
        found.append(hosts.start(
            rank + 1, [sys.executable, "-m", "tests.hosts.steps", str(folder)], env=variables, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True,
        ))  # fmt: skip
    return found


def steps(folder: Path) -> list[int]:
    """The last step of each rank."""
    return [int((path.read_text() or "0").split()[-1]) for path in sorted(folder.glob("rank*.txt"))]


def await_more(folder: Path, than: list[int]) -> None:
    deadline = time.monotonic() + 30
    while len(steps(folder)) < 3 or min(steps(folder)) <= max(than):
        assert time.monotonic() < deadline, steps(folder)
        time.sleep(0.1)


def test_cuts(tmp_path):
    with Hosts(3, tmp_path) as hosts:
        ranks = start(hosts, tmp_path)
        await_more(tmp_path, [0])
        hosts.cut(2)
        time.sleep(1)
        during = steps(tmp_path)
        time.sleep(SHORT_SECONDS - 1)
        assert max(steps(tmp_path)) <= max(during) + 1  # nothing passes, so the cut is one
        hosts.heal(2)
        await_more(tmp_path, [max(during) + 2])
        (tmp_path / "idle").touch()
        time.sleep(2)
        hosts.cut(2)
        began, said = time.monotonic(), []
        for rank in ranks:
            said.append(rank.communicate(timeout=LONG_SECONDS)[1])
            assert rank.returncode == 1, said
        assert time.monotonic() - began < LONG_SECONDS
    cut = "its machine, or the network between, has not answered for 45 s"
    for rank, of in ((0, 1), (1, 0), (2, 1)):
        assert f"[rank {rank}] stopped because of rank {of}: {cut}" in said[rank], said
