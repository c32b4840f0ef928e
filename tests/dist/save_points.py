"""The process behind test_save_points.py: runs that are saved, stopped and resumed at other steps than others.

python -m tests.dist.save_points DIR writes DIR/report.json: {run: exit codes}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from tests.dist import forked
from tests.dist.stops import ask
from tests.dist.tiny_run import CLASSES, make_entry

WINDOW = 9  # so that rows are brought up to date in the middle of the run as well
CASES = {
    "compiled": (1, {}),
    "Paddle's operations": (2, {"classifier.compiled": False}),
    "float16": (1, {"classifier.storage": "float16"}),
    "2 ranks compiled": (2, {}),
    "2 ranks, replicas": (2, {"classifier.model_parallel": False}),
    "a user's optimizer": (2, {"plugins": ["my_adamw.py"], "optimizer.name": "lamb", "class_optimizer.name": "my_adamw",
                              "lr": 0.5}),
    "adamw": (2, {"optimizer.name": "adamw", "optimizer.options": {"beta2": 0.99}, "lr": 0.5}),
    "lazy, adafactor": (2, {"optimizer.name": "adafactor", "class_optimizer.name": "adamw",
                            "class_optimizer.sparse": "lazy", "lr": 0.5}),
}  # fmt: skip
# With Paddle 2.6 those that take other operations of Paddle; where a run is saved is the same program's.
AGAIN = ("compiled", "Paddle's operations", "2 ranks compiled", "a user's optimizer", "adamw")
ON_ONE_RANK = "2 ranks compiled", "a user's optimizer", "adamw"
OPTIONS = {"with_test": False, "save_async": False, "train_steps": 24, "lr_schedule.boundaries": [12]}


def names() -> tuple[str, ...]:
    """The cases that run with this Paddle."""
    from plsc.backend import static

    return tuple(CASES) if static.is_pir() else AGAIN


def train(run_dir: Path, options: dict, stop_in: int = 0) -> None:
    from plsc.rows import history as row_history

    if stop_in:
        ask("step", stop_in, signal.SIGTERM)
    with mock.patch.object(row_history, "WINDOW_STEPS", WINDOW):
        make_entry(run_dir, {**OPTIONS, **options}).train()


def as_loaded_by_one_rank(run_dir: Path, step: int, options: dict) -> None:
    """Writes what one rank makes of a checkpoint of ``run_dir``, all rows brought up to date."""
    from plsc.engine.program.session import Session

    start = Session.step

    def stop(self, *args):
        self.bring_rows_up_to_date()
        arrays = {name: np.zeros((CLASSES, 8), np.float32) for name in self.program.rows.tensors}
        for name, first, rows in self.blocks():
            arrays[name][first : first + len(rows)] = rows
        np.savez(run_dir / "one_rank.npz", **arrays)
        return start(self, *args)

    Session.step = stop
    options = {**options, "checkpoint_dir": str(run_dir / "checkpoints" / f"step_{step:08d}"), "train_steps": step + 1,
               "lr_schedule.boundaries": [step], "train_batch_size": 8}  # fmt: skip
    make_entry(run_dir / "one_rank", {**OPTIONS, **options, "resume": "never"}).train()


def write_page(cwd: Path) -> None:
    """The optimizer of docs/add_an_optimizer.md, which makes up for missed steps one by one."""
    page = (Path(__file__).parents[2] / "docs" / "add_an_optimizer.md").read_text(encoding="utf-8")
    code = page.partition("```python\n# my_adamw.py\n")[2].partition("```")[0]
    (cwd / "my_adamw.py").write_text(code, encoding="utf-8")


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    write_page(cwd)
    os.chdir(cwd)  # where the plugin's path is looked for

    def run(name: str, ranks: int, work) -> None:
        report[name] = forked.run(ranks, cwd, work)

    for name in names():
        ranks, options = CASES[name]
        straight, other = cwd / f"{name} straight", cwd / f"{name} other"
        keep = {**options, "max_last_checkpoint_num": 0}
        run(f"{name}, straight", ranks, lambda rank: train(straight, {**keep, "save_period": 0}))  # noqa: B023
        run(f"{name}, stopped", ranks, lambda rank: train(other, {**keep, "save_period": 3}, 4))  # noqa: B023
        run(f"{name}, stopped again", ranks, lambda rank: train(other, {**keep, "save_period": 4}, 8))  # noqa: B023
        run(f"{name}, to its end", ranks, lambda rank: train(other, {**keep, "save_period": 5}))  # noqa: B023
    for name in ON_ONE_RANK:
        options = CASES[name][1]
        run(f"{name}, one rank", 1, lambda rank: as_loaded_by_one_rank(cwd / f"{name} other", 15, options))  # noqa: B023
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
