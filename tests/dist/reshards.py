"""The process behind test_other_ranks.py: half of a run on N ranks, the rest on M.

python -m tests.dist.reshards DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

GLOBAL_BATCH, HALF, STEPS = 12, 6, 12
RATE_OF_ADAM = 0.02
PAIRS = [(1, 2), (2, 3), (4, 1), (2, 1), (3, 2), (3, 4), (4, 3)]
OPTIONS = {"classifier.sample_ratio": 1.0, "with_test": False, "save_period": 0, "lr_schedule.boundaries": [9]}


def pairs() -> list[tuple[int, int]]:
    """Those that run with this Paddle: who reads what is no matter of it."""
    from plsc.backend import static

    return PAIRS if static.is_pir() else PAIRS[:3]


def part(run_dir: Path, world_size: int, steps: int, global_batch: int = GLOBAL_BATCH, adam: float = 0.0) -> None:
    options = {**OPTIONS, "train_steps": steps, "train_batch_size": global_batch // world_size}
    make_entry(run_dir, options, plain=True, adam=adam).train()


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}

    def run(name: str, world_size: int, *args) -> None:
        codes = forked.run(world_size, cwd, lambda rank: part(cwd / name, world_size, *args))
        report.setdefault(name, []).extend(codes)

    def run_on(name: str, pair: tuple[int, int], adam: float) -> None:
        """The half of a number of ranks is made once, and gone on with in copies."""
        half = f"half of {pair[0]}{' adam' * bool(adam)}"
        if half not in report:
            run(half, pair[0], HALF, GLOBAL_BATCH, adam)
        report[name] = list(report[half])
        shutil.copytree(cwd / half, cwd / name)
        run(name, pair[1], STEPS, GLOBAL_BATCH, adam)

    run("alone", 1, STEPS)  # never interrupted: what a checkpoint forgets would show
    run("alone adam", 1, STEPS, GLOBAL_BATCH, RATE_OF_ADAM)
    for before, after in pairs():
        run_on(f"{before} to {after}", (before, after), 0.0)
    run_on("2 to 3 adam", (2, 3), RATE_OF_ADAM)
    run("other batch", 2, 5, 12)  # 60 samples: the first epoch and 8 of the second
    run("other batch", 1, 9, 11)  # 44 more: just to the end of the second
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
