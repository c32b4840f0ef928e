"""The process behind test_own_losses_resumed.py: runs with a loss that keeps states, straight and in two parts.

python -m tests.dist.loss_resumes DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

GLOBAL_BATCH, HALF, STEPS = 12, 6, 12
OPTIONS = {
    "plugins": ["tests.dist.toy_loss"], "classifier.loss_type": "toy", "classifier.loss_options": {"margin": 0.1},
    "with_test": False, "save_period": 0, "lr": 1.0, "lr_schedule.boundaries": [9], "classifier.sample_ratio": 1.0,
}  # fmt: skip


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}

    def run(name: str, world_size: int, steps: int) -> None:
        options = {**OPTIONS, "train_steps": steps, "train_batch_size": GLOBAL_BATCH // world_size}
        codes = forked.run(world_size, cwd, lambda rank: make_entry(cwd / name, options, plain=True).train())
        report.setdefault(name, []).extend(codes)

    run("alone", 1, STEPS)
    run("straight", 2, STEPS)
    run("resumed", 2, HALF)
    run("resumed", 2, STEPS)
    run("2 to 3", 2, HALF)
    run("2 to 3", 3, STEPS)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
