"""The process behind test_places.py: runs whose ranks do not share a disk, killed, moved and resumed.

python -m tests.dist.places_cases DIR writes DIR/report.json: {run: exit codes}. Each rank works in its DIR/RUN/disk<d>;
model_save_dir is "run" in it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

METRIC = "test_dataset.auc"
MODEL_PARALLEL = {"best_metric": METRIC, "max_last_checkpoint_num": 2}  # sampled rows that wait, saved beside training
COPIED = {**MODEL_PARALLEL, "remote.upload": "every_save"}
DATA_PARALLEL = {
    "classifier.model_parallel": False, "classifier.sample_ratio": 1.0, "save_async": False, "ema.decay": 0.9,
    "grad_clip_norm": 1.0, "with_test": False, "train_steps": 12, "lr_schedule.boundaries": [7],
}  # fmt: skip
REPLICAS = {"with_test": False, "save_async": False, "train_steps": 15, "lr_schedule.boundaries": [9]}
KILLED_AT = 10


def kill_between_the_phases(other_disk: Path) -> None:
    """This rank is killed when the other one has put the checkpoint of KILLED_AT in place and this one has not."""
    from plsc.checkpoint import write

    publish = write.publish_dir

    def watched(aside: str, final: str) -> None:
        if final.endswith(f"step_{KILLED_AT:08d}"):
            deadline = time.monotonic() + 30
            while not (other_disk / final).is_dir() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        publish(aside, final)

    write.publish_dir = watched


class Disks:
    """The disks of one run, ``root``/disk0, disk1, ..., and what became of it."""

    def __init__(self, root: Path, report: dict):
        self.root, self._report = root, report
        root.mkdir()

    def train(self, name: str, disks: list[int], options: dict, killed: bool = False) -> None:
        if options.get("remote.upload"):
            options = {**options, "remote.save_url": f"file://{self.root}/address"}

        def work(rank: int) -> None:
            where = self.root / f"disk{disks[rank]}"
            where.mkdir(exist_ok=True)
            os.chdir(where)
            if killed and rank == 1:
                kill_between_the_phases(self.root / f"disk{disks[0]}")
            make_entry(Path("run"), options).train()

        (self.root / name).mkdir()
        self._report[f"{self.root.name}, {name}"] = forked.run(len(disks), self.root / name, work)


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    shared = Disks(cwd / "shared", report)
    shared.train("all", [0, 0], MODEL_PARALLEL)
    own = Disks(cwd / "own", report)
    own.train("killed", [0, 1], COPIED, killed=True)
    shutil.copytree(own.root / "disk1" / "run" / "checkpoints", own.root / "left by the kill")
    copied = Disks(cwd / "copied", report)
    for name in ("disk0", "address"):
        shutil.copytree(own.root / name, copied.root / name)
    own.train("moved", [1, 0], COPIED)
    copied.train("all", [0, 2], COPIED)  # disk 1 is lost, and disk 0 has no copies

    for name, disks, others in (("one copy shared", [0, 0], [0, 0]), ("one copy", [0, 1], [2, 1])):
        run = Disks(cwd / name, report)
        run.train("half", disks, {**DATA_PARALLEL, "train_steps": 6})
        run.train("all", others, DATA_PARALLEL)  # disk 0 is lost, disk 2 is new

    for name, disks, others in (("replicas shared", [0, 0, 0], [0, 0]), ("replicas", [0, 1, 2], [2, 1])):
        run = Disks(cwd / name, report)
        options = REPLICAS if name.endswith("shared") else {**REPLICAS, "checkpoint_replicas": 1}
        run.train("half", disks, {**options, "train_steps": 7})
        run.train("all", others, options)  # machine 0 is lost, the others have other ranks: 2 in place of 3
    lost = Disks(cwd / "lost", report)
    lost.train("half", [0, 1], {**REPLICAS, "train_steps": 5})
    lost.train("all", [0, 2], REPLICAS)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
