"""The process behind the runs of test_half_precision.py: in half precision, straight and in two parts.

python -m tests.dist.half_resumes DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from plsc.backend import static
from tests.dist import forked
from tests.dist.tiny_run import make_entry

GLOBAL_BATCH, HALF, STEPS = 12, 3, 6
# what float16 overflows in the first steps: they are skipped, and the scale shrinks until one is not
SCALED = {"dtype": "float16", "init_loss_scaling": 2.0**24, "decr_every_n_nan_or_inf": 1, "decr_ratio": 2.0**-8}
PRECISION = {"enabled": True, "level": "O2", **(SCALED if static.is_pir() else {"dtype": "bfloat16"})}
USUAL = {
    "with_test": False, "save_period": 0, "lr": 1.0, "lr_schedule.boundaries": [5], "accumulate": 2,
    "classifier.sample_ratio": 1.0,    "ema.decay": 0.9, "grad_clip_norm": 1.0, "model.data_format": "NCHW",
    **{f"mixed_precision.{name}": value for name, value in PRECISION.items()},
}  # fmt: skip


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}

    def run(name: str, world_size: int, steps: int) -> None:
        options = {**USUAL, "train_steps": steps, "train_batch_size": GLOBAL_BATCH // world_size // 2}
        codes = forked.run(world_size, cwd, lambda rank: make_entry(cwd / name, options, plain=True).train())
        report.setdefault(name, []).extend(codes)

    run("straight", 2, STEPS)
    run("resumed", 2, HALF)
    shutil.copytree(cwd / "resumed", cwd / "2 to 3", symlinks=True)
    run("2 to 3", 3, STEPS)
    run("resumed", 2, STEPS)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
