"""The process behind test_saver.py: checkpoints beside training on a slow disk, on a full one, and with little memory.

python -m tests.dist.disks DIR writes DIR/report.json.
"""

from __future__ import annotations

import errno
import json
import sys
import threading
import time
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry


def slow_disk(rank: int, run_dir: Path) -> None:
    """Writes when each save began and ended, and when each step was made."""
    from plsc import checkpoint
    from plsc.engine.program.session import Session

    save, step, events, went_on = checkpoint.save, Session.step, [], threading.Event()

    def slow_save(*args):
        events.append(["save begins", args[1], time.monotonic()])
        if args[1] == 5:
            went_on.wait(30)  # for training, however slow the machine is: where it stands still this comes to an end
            time.sleep(0.3)  # and so much longer than training takes to the next save
        path = save(*args)
        events.append(["save ends", args[1], time.monotonic()])
        return path

    def watched_step(self, number, *args):
        events.append(["step", number, time.monotonic()])
        if number == 6:
            went_on.set()
        return step(self, number, *args)

    checkpoint.save, Session.step = slow_save, watched_step
    make_entry(run_dir, {"with_test": False, "train_steps": 14}).train()
    (run_dir / f"events{rank}.json").write_text(json.dumps(events))


def full_disk(rank: int, run_dir: Path) -> None:
    """The disk of rank 1 is full from the second save on."""
    from plsc.files.hashes import HashedFile

    sync, count = HashedFile.finish, 0

    def finish(self):
        nonlocal count
        count += 1
        if rank == 1 and count == 2:
            raise OSError(errno.ENOSPC, "No space left on device", self._path)
        return sync(self)

    HashedFile.finish = finish
    make_entry(run_dir, {"with_test": False}).train()


def little_memory(rank: int, run_dir: Path) -> None:
    from plsc.engine.training import saver

    saver.free_memory = lambda: 1 << 30 if rank == 0 else 100
    make_entry(run_dir, {"with_test": False, "train_steps": 6}).train()


def no_memory(rank: int, run_dir: Path) -> None:
    """The machine of rank 1 is full."""
    from plsc.engine.memory import check as memory_check

    memory_check.free_memory = lambda: 1 << 40 if rank == 0 else 100
    make_entry(run_dir, {"with_test": False, "train_steps": 6, "memory_check": True}).train()


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    for case in (slow_disk, full_disk, little_memory, no_memory):
        (cwd / case.__name__).mkdir()
        codes = forked.run(2, cwd / case.__name__, lambda rank: case(rank, cwd / case.__name__), lone=True)  # noqa: B023
        report[case.__name__] = codes
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
