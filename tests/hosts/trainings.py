"""A small training, started on hosts as a user would on each machine, and the same on one host to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.dist import ranks
from tests.dist.launch import ROOT
from tests.hosts.hosts import HostProcess, Hosts

SECONDS = 400  # what a machine with many other runs may take
PORT = 6170  # of the launchers' rendezvous
# Every rank has a share of every step, and the batch statistics, the sample and the order are those of a real run.
TINY = """
model: {name: ResNet10, base_width: 4, image_shape: [3, 16, 16], embedding_size: 8}
classifier: {num_classes: 41, sample_ratio: 0.5}
data: {dataset: synthetic, train_image_num: 64, num_workers: 0}
train_batch_size: 4
train_steps: 3
with_test: false
log_period: 1
device: cpu
num_threads: 1
seed: 1
memory_check: false
"""


class Job:
    """One training: a launcher on each host, which share ``folder``. Options are those of `plsc train`."""

    def __init__(self, hosts: Hosts, folder: Path, local: int, master: str, options: Sequence[str] = ()):
        folder.mkdir(exist_ok=True)
        (folder / "tiny.yaml").write_text(TINY)
        self.folder = folder
        self.launchers: dict[int, HostProcess] = {}
        for host in range(1, hosts.count + 1):
            command = [sys.executable, "-m", "plsc", "train", "-c", "tiny.yaml", "--ranks", str(local), "--nnodes",
                       str(hosts.count), "--master", master, "--log-dir", f"log{host}", *options]  # fmt: skip
            with open(folder / f"said{host}.txt", "wb") as said:
                self.launchers[host] = hosts.start(
                    host, command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said
                )

    def codes(self, seconds: float = SECONDS) -> list[int | None]:
        """What the launchers end with, in the order of the hosts; None: it runs still after ``seconds``."""
        deadline = time.monotonic() + seconds
        for launcher in self.launchers.values():
            try:
                launcher.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
        return [launcher.poll() for launcher in self.launchers.values()]

    def await_step(self, step: int) -> None:
        """Until rank 0 has made step N (from 1)."""
        log, deadline = self.folder / "output" / "logs" / "rank_00000.log", time.monotonic() + SECONDS
        while not log.exists() or f"step {step}/" not in log.read_text():
            assert time.monotonic() < deadline and self.codes(0) == [None] * len(self.launchers), self.all_said()
            time.sleep(0.1)

    def said(self, host: int) -> str:
        return (self.folder / f"said{host}.txt").read_text(errors="replace")

    def all_said(self) -> str:
        """All that was said on all hosts, for the message of an assertion."""
        logs = [path for host in self.launchers for path in sorted((self.folder / f"log{host}").glob("workerlog.*"))]
        texts = [f"host {host}: {self.said(host)[-4000:]}" for host in self.launchers]
        return "\n".join(texts + [f"{path}: {path.read_text(errors='replace')[-3000:]}" for path in logs])


def environment() -> dict[str, str]:
    """Of a terminal in which nothing was launched yet, with the operations in C++ that this machine has compiled."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PADDLE_", "PLSC_"))}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # a host has a home of its own
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "0", "XDG_CACHE_HOME": cache}


def train_on_one_host(folder: Path, world_size: int, *options: str) -> None:
    """The same training by ranks of this machine."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(TINY)
    codes = ranks.call("tests.hosts.trainings:train", options, world_size, folder)
    assert codes == [0] * world_size, (folder / "rank0.log").read_text()


def train(*options: str) -> None:
    from plsc.cli.main import main

    assert main(["train", "-c", "tiny.yaml", "--quiet", *options]) == 0


def results(folder: Path, steps: int) -> tuple[list[float], dict[str, bytes]]:
    """The losses of the first ``steps`` steps, and the files of the checkpoint after them."""
    lines = (folder / "output" / "scalars.jsonl").read_text().splitlines()
    losses = [values["loss"] for values in map(json.loads, lines) if "loss" in values]
    saved = folder / "output" / "checkpoints" / f"step_{steps:08d}"
    return losses[:steps], {path.name: path.read_bytes() for path in saved.iterdir() if path.is_file()}
