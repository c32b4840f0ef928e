"""The process behind test_late_results.py: runs that read their results late, stopped and continued, beside runs that
do not; and runs with a loss that is no number.

python -m tests.dist.late_results DIR writes DIR/report.json: {run: [exit code of each rank]}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from plsc.backend import static
from plsc.errors import TrainingError
from tests.dist import forked
from tests.dist.tiny_run import make_entry

STEPS, PERIOD = 12, 6  # two ranks have an epoch of six and a half steps, and save after 7 of them too
ASKED = BAD = 8  # the call of Session.step with the signal, or with pixels that are no numbers, on the last rank
# in float16 the first steps are skipped, until the scale is small enough
SCALED = {"dtype": "float16", "init_loss_scaling": 2.0**24, "decr_every_n_nan_or_inf": 1, "decr_ratio": 2.0**-8}
HALF = {"enabled": True, **SCALED, "incr_every_n_steps": 4, "incr_ratio": 2.0**8} if static.is_pir() else {}
# ranks: rows that make up missed steps and an optimizer that counts; averages, clipping, classes of each rank
OPTIONS = {
    1: {"optimizer.name": "adamw", "lr": 0.5, "data.num_workers": 1, "model.data_format": "NCHW",
        **{f"mixed_precision.{name}": value for name, value in HALF.items()}},
    2: {"ema.decay": 0.9, "grad_clip_norm": 1.0},
}  # fmt: skip


def change_a_step(kind: str) -> None:
    from plsc.engine.program.session import Session

    step, calls = Session.step, []

    def changed(self, number, inputs, *given):
        calls.append(number)
        if len(calls) == ASKED and kind == "stopped":
            os.kill(os.getpid(), signal.SIGTERM)
        if len(calls) == BAD and kind == "bad":
            inputs = {**inputs, "image": np.full_like(inputs["image"], np.nan)}
        return step(self, number, inputs, *given)

    Session.step = changed


def attempt(rank: int, run_dir: Path, late: str, ranks: int, kind: str = "") -> None:
    if rank == ranks - 1:
        change_a_step(kind)
    periods = {"train_steps": STEPS, "save_period": PERIOD, "test_period": PERIOD}
    options = {**OPTIONS[ranks], **periods, "late_results": late, "with_test": kind != "bad"}
    try:
        make_entry(run_dir, options).train()
    except TrainingError as error:
        (run_dir / f"error{rank}").write_text(str(error))
        raise SystemExit(7) from None


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    for ranks in (1, 2):
        for name, late, kind in (("never", "never", ""), ("always", "always", "stopped"), ("always", "always", "")):
            run_dir = cwd / f"{name}{ranks}"
            codes = forked.run(ranks, cwd, lambda rank: attempt(rank, run_dir, late, ranks, kind))  # noqa: B023
            report[f"{run_dir.name} {kind}"] = codes
            report[f"{run_dir.name} {kind} newest"] = max(path.name for path in (run_dir / "checkpoints").iterdir())
    for late in ("never", "always"):
        run_dir = cwd / f"bad {late}"
        report[run_dir.name] = forked.run(2, cwd, lambda rank: attempt(rank, run_dir, late, 2, "bad"))  # noqa: B023
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
