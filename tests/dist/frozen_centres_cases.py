"""Runs with a teacher's centres on real ranks (see test_frozen_centres.py).

python -m tests.dist.frozen_centres_cases DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

COMMON = {"with_test": False, "train_steps": 6, "save_period": 3}


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}

    def run(name: str, world_size: int, options: dict, run_dir: str = "", plain: bool = False) -> None:
        (cwd / name).mkdir()
        where, options = cwd / (run_dir or name), {**COMMON, **options}
        report[name] = forked.run(world_size, cwd / name, lambda rank: make_entry(where, options, plain).train())

    centres = {"distill.centres": str(cwd / "teacher")}
    run("teacher", 1, {"classifier.sample_ratio": 1.0}, plain=True)  # another net than the student's
    run("straight", 2, centres)
    run("first half", 2, {**centres, "train_steps": 3}, "halves")
    run("second half", 2, centres, "halves")
    run("on three", 3, {**centres, "train_steps": 8}, "halves")
    run("trained again", 2, {"train_steps": 9}, "halves")
    run("more classes", 2, {**centres, "classifier.num_classes": 40})
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
