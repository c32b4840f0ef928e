"""The process behind test_late.py: a rank that stands still while the others wait for it in the program.

python -m tests.dist.late DIR writes DIR/report.json: the exit codes by name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

SETTINGS = {"with_test": False, "save_period": 0, "data.num_workers": 0}
SECONDS = 4.0


def watch_closely(then=lambda: None) -> None:
    """From the third step on, when all is compiled, a rank may be late by SECONDS only; ``then`` is called then."""
    from plsc.engine.program.session import Session
    from plsc.parallel.environment import Environment
    from plsc.parallel.group import open_group

    step = Session.step

    def watched(self, number, *args):
        results = step(self, number, *args)
        if number == 1:
            open_group(Environment.from_launch()).watch_stalls(SECONDS)
            then()
        return results

    Session.step = watched


class Stuck:
    """A data set that gives nothing more once it is told to."""

    def __init__(self, samples):
        self._samples, self.ended = samples, False

    def __len__(self):
        return len(self._samples)

    def __getitem__(self, index):
        if self.ended:
            threading.Event().wait()
        return self._samples[index]


def stuck(rank: int, run_dir: Path, late: int) -> None:
    entry = make_entry(run_dir, SETTINGS)
    data = Stuck(entry.train_dataset)
    watch_closely(lambda: setattr(data, "ended", rank == late))
    entry.train_dataset = data
    ended_by_one_line(entry)


def stopped(rank: int, run_dir: Path, late: int) -> None:
    """The process of a rank is stopped in its third step and goes on when another one has said that it is late."""
    from plsc.engine.program.session import Session

    watch_closely()
    step, log = Session.step, run_dir.parent / f"rank{1 - late}.log"

    def stops(self, number, *args):
        if number == 2:
            me = os.getpid()
            if os.fork() == 0:  # who wakes it
                while "is late" not in log.read_text():
                    time.sleep(0.05)
                os.kill(me, signal.SIGCONT)
                os._exit(0)
            os.kill(me, signal.SIGSTOP)
        return step(self, number, *args)

    if rank == late:
        Session.step = stops
    ended_by_one_line(make_entry(run_dir, SETTINGS))


def slow(rank: int, run_dir: Path, late: int) -> None:
    """Between steps a rank may take longer than a step may be late."""
    from plsc import checkpoint

    save = checkpoint.save

    def slow_save(*args):
        if rank == late:
            time.sleep(2 * SECONDS)
        return save(*args)

    watch_closely()

    checkpoint.save = slow_save
    make_entry(run_dir, {**SETTINGS, "train_steps": 3, "save_async": False}).train()


def ended_by_one_line(entry) -> None:
    from plsc.errors import PlscError
    from plsc.parallel.excepthook import one_line

    try:
        entry.train()
    except PlscError as error:
        print(one_line(error, None))
        raise SystemExit(1) from None


CASES = {"stuck 1": (stuck, 1), "stuck 0": (stuck, 0), "stopped 1": (stopped, 1), "stopped 0": (stopped, 0),
         "slow": (slow, 1)}  # fmt: skip


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    for name, (case, late) in CASES.items():
        (cwd / name).mkdir()
        work = lambda rank: case(rank, cwd / name / "run", late)  # noqa: B023, E731
        report[name] = forked.run(2, cwd / name, work, lone=True)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
