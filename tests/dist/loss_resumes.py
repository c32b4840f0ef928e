"""The process behind test_own_losses_resumed.py: runs with losses that keep states, straight and in two parts.

python -m tests.dist.loss_resumes DIR writes DIR/report.json: exit codes by name.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import CLASSES, make_entry

GLOBAL_BATCH, HALF, STEPS = 12, 3, 6
USUAL = {
    "with_test": False, "save_period": 0, "lr": 1.0, "lr_schedule.boundaries": [5], "classifier.sample_ratio": 1.0,
    "plugins": ["tests.dist.toy_loss"],
}  # fmt: skip
LOSSES = {  # name: (states, options)
    "toy": (("norm", "cosine"), {"margin": 0.1}),
    "adaface": (("mean", "deviation"), {"alpha": 0.3}),
    "magface": ((), {"shortest": 1.0, "longest": 3.0}),
    "curricularface": (("t",), {}),
    "elastic_arcface": ((), {"sigma": 0.1}),
    "elastic_cosface": ((), {"sigma": 0.1, "plus": True}),
    "uniface": (("bias",), {}),
    "arcface": ((), {}),
}
MORE = {"arcface": {"classifier.sub_centres": 3}}  # settings beside those of the loss
# whose runs on one rank are compared: the formulas of the others may jump
ALONE = "toy", "adaface", "elastic_arcface", "uniface", "arcface"


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    factors = cwd / "factors.txt"
    factors.write_text("".join(f"{0.5 + label / CLASSES}\n" for label in range(CLASSES)))

    def run(loss: str, name: str, world_size: int, steps: int) -> None:
        batch = {"train_steps": steps, "train_batch_size": GLOBAL_BATCH // world_size}
        options = {**USUAL, "classifier.loss_type": loss, "classifier.loss_options": LOSSES[loss][1], **batch,
                   **MORE.get(loss, {})}  # fmt: skip
        if loss == "toy":
            options["classifier.class_weights"] = str(factors)
        where = cwd / loss / name
        codes = forked.run(world_size, cwd, lambda rank: make_entry(where, options, plain=True).train())
        report.setdefault(f"{loss} {name}", []).extend(codes)

    for loss in LOSSES:
        run(loss, "straight", 2, STEPS)
        run(loss, "resumed", 2, HALF)
        if loss in ALONE:
            shutil.copytree(cwd / loss / "resumed", cwd / loss / "2 to 3", symlinks=True)
            run(loss, "2 to 3", 3, STEPS)
            run(loss, "alone", 1, STEPS)
        run(loss, "resumed", 2, STEPS)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
