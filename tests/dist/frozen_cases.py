"""The process behind test_frozen_runs.py: runs with frozen stages and factors, from the backbone of an old run.

python -m tests.dist.frozen_cases DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

# all classes in each step: the last save of a run changes nothing then
COMMON = {"with_test": False, "sample_ratio": 1.0, "train_steps": 6, "save_period": 3, "lr": 1.0}
STEM = {"model.freeze": ["stem"], "lr_factors": {"head": 0.5}}


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    first = {"init_checkpoint": str(cwd / "old"), "init_from": "backbone"}

    def run(name: str, world_size: int, options: dict, run_dir: str = "") -> None:
        options = {key.replace("sample_ratio", "classifier.sample_ratio"): value for key, value in options.items()}
        report[name] = forked.run(world_size, cwd, lambda rank: make_entry(cwd / (run_dir or name), options).train())

    run("old", 1, COMMON)
    run("straight", 3, {**COMMON, **first, **STEM})
    run("first half", 3, {**COMMON, **first, **STEM, "train_steps": 3}, "halves")
    run("second half", 3, {**COMMON, **first, **STEM}, "halves")
    run("other", 2, {**COMMON, "train_steps": 9}, "halves")
    for ranks in (1, 2):
        batch = {"train_batch_size": 8 // ranks, "train_steps": 3}
        run(f"all{ranks}", ranks, {**COMMON, **first, **batch, "model.freeze": "all"})
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
