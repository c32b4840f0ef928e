"""The process behind test_initial.py: a run of 37 classes on 2 ranks, then new runs that begin with parts of it.

python -m tests.dist.initials DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import CLASSES, make_entry

NEW_CLASSES = 50
KEPT = {0: 7, 36: 3, 18: 49, 19: 24, 20: 25, 5: 0}  # old: new, over both shards of both runs
STILL = {"train_steps": 1, "lr": 1e-30, "weight_decay": 0.0, "with_test": False, "save_async": False}


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    (cwd / "map.txt").write_text("".join(f"{old}\t{new}\n" for old, new in KEPT.items()))
    (cwd / "bad.txt").write_text("1\t50\n")
    first = {"init_checkpoint": str(cwd / "old"), **STILL, "classifier.num_classes": NEW_CLASSES}

    def run(name: str, world_size: int, options: dict, **more) -> None:
        report[name] = forked.run(world_size, cwd, lambda rank: make_entry(cwd / name, options, **more).train())

    run("old", 2, {"train_steps": 8, "with_test": False})
    run("fresh", 2, {**STILL, "classifier.num_classes": NEW_CLASSES})
    run("backbone", 2, {**first, "init_from": "backbone"})
    for ranks in (1, 2, 3):
        run(f"classes{ranks}", ranks, {**first, "init_from": "classes", "label_map": str(cwd / "map.txt")})
    run("number", 2, {**first, "init_from": "classes", "classifier.num_classes": CLASSES})
    run("other number", 2, {**first, "init_from": "classes"})
    run("bad map", 2, {**first, "init_from": "classes", "label_map": str(cwd / "bad.txt")})
    run("other model", 2, {**first, "init_from": "backbone"}, plain=True)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
