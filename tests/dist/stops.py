"""The process behind test_stop.py: SIGTERM or Ctrl-C reaches one rank, or all, in training or in verification.

python -m tests.dist.stops DIR writes DIR/report.json: exit codes and the newest step after the stop, by name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

DENSE = {"classifier.sample_ratio": 1.0, "data.num_workers": 1}
CASES = {
    "one rank in training": (2, "step", 8, [1]),
    "all ranks in verification": (2, "verify", 2, [0, 1]),
    "alone": (1, "step", 3, [0]),
    "in the last step": (1, "step", 24, [0]),
    "Ctrl-C": (1, "step", 3, [0]),
}


def ask(kind: str, call: int, number: int) -> None:
    """Send a signal to this process before the ``call``-th call."""
    from plsc.engine.evaluation.evaluate import Embedder
    from plsc.engine.program.session import Session

    owner, name = (Session, "step") if kind == "step" else (Embedder, "_feature")
    function, count = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def attempt(rank: int, run_dir: Path, asked: list[int], kind: str, call: int) -> None:
    if rank in asked:
        ask(kind, call, signal.SIGINT if run_dir.name == "Ctrl-C" else signal.SIGTERM)
    make_entry(run_dir, DENSE).train()


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    for world_size in (1, 2):
        forked.run(world_size, cwd, lambda rank: attempt(rank, cwd / f"straight{world_size}", [], "step", 0))  # noqa: B023
    for name, (world_size, kind, call, asked) in CASES.items():
        run_dir = cwd / name
        stopped = forked.run(world_size, cwd, lambda rank: attempt(rank, run_dir, asked, kind, call))  # noqa: B023
        newest = sorted(path.name for path in (run_dir / "checkpoints").iterdir())[-1]
        resumed = forked.run(world_size, cwd, lambda rank: attempt(rank, run_dir, [], kind, call))  # noqa: B023
        report[name] = {"codes": stopped, "newest": newest, "resumed": resumed}
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
