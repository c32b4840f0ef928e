"""The process behind test_hard_resumed.py: runs with hard negatives, straight, resumed, on another number of ranks.

python -m tests.dist.hard_resumes DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

GLOBAL_BATCH, HALF, STEPS = 12, 5, 9  # neither is a whole epoch
SHARE = "classifier.hard_negative_share"


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}

    def run(name: str, world_size: int, steps: int, **options) -> None:
        batch = {"train_steps": steps, "train_batch_size": GLOBAL_BATCH // world_size}
        keys = {"with_test": False, "save_period": HALF, SHARE: 0.6, **batch, **options}
        codes = forked.run(world_size, cwd, lambda rank: make_entry(cwd / name, keys).train())
        report.setdefault(name, []).extend(codes)

    run("straight", 2, STEPS)
    for name in ("resumed", "2 to 3", "left out"):  # from the middle: at its end a run brings all rows up to date
        shutil.copytree(cwd / "straight", cwd / name, symlinks=True)
        shutil.rmtree(cwd / name / "checkpoints" / f"step_{STEPS:08d}")
    run("resumed", 2, STEPS)
    run("2 to 3", 3, HALF + 1)
    run("left out", 2, STEPS, **{SHARE: 0.0})
    run("left out", 2, STEPS + 1)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
