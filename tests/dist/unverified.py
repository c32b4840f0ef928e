"""The process behind test_unverified.py: verifications that fail, and sets that are refused before the first step.

python -m tests.dist.unverified DIR writes DIR/report.json: {case: exit codes of the ranks}.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from plsc.errors import PlscError, VerificationError
from plsc.evaluation.bin_file import save_bin
from tests.dist import forked
from tests.dist.tiny_run import SHAPE, Pictures, make_entry

OPTIONS = {"train_steps": 12, "save_period": 4, "best_metric": "test_dataset.auc"}
# verified and saved at 4, 8, 12


class Breaks(Pictures):
    """``test_dataset`` that raises for sample 21 once ``step`` steps are done."""

    def __init__(self, run_dir: Path, step: int):
        super().__init__(24, 3, salt=1, noise=4.0)
        self._log, self._step = run_dir / "scalars.jsonl", step

    def __getitem__(self, index):
        if index == 21 and f'"step": {self._step}' in (self._log.read_text() if self._log.exists() else ""):
            raise OSError("the disk has gone")
        return super().__getitem__(index)


def good(rank: int, run_dir: Path) -> None:
    make_entry(run_dir, OPTIONS).train()


def breaks(rank: int, run_dir: Path) -> None:
    """The data set fails on the last rank only; the others must not wait for it."""
    entry = make_entry(run_dir, OPTIONS)
    last = rank == int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) - 1
    entry.test_dataset = Breaks(run_dir, 7 if last else 10**9)
    try:
        entry.train()
    except VerificationError as error:
        result = error.result
        about = {"text": str(error), "steps": list(result.unverified), "path": result.checkpoint, "step": result.step}
        (run_dir / f"error{rank}.json").write_text(json.dumps(about))
        raise SystemExit(3) from None


def dies(rank: int, run_dir: Path) -> None:
    """The process is gone at the verification of the last step."""
    entry = make_entry(run_dir, {**OPTIONS, "test_period": 12, "save_async": False})

    class Dies(Breaks):
        def __getitem__(self, index):
            try:
                return super().__getitem__(index)
            except OSError:
                os._exit(9)

    entry.test_dataset = Dies(run_dir, 12)
    entry.train()


def cut_off(rank: int, run_dir: Path) -> None:
    """A set of files whose picture 21 ends in the middle."""
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (*SHAPE[1:], 3), np.uint8)
    Image.fromarray(noise).save(data, "PNG")
    whole = data.getvalue()
    pictures = [whole] * 40
    pictures[21] = whole[: len(whole) // 2]
    save_bin(run_dir / "faces.bin", pictures, [True, False] * 10)  # both ranks the same, whole or not at all
    entry = make_entry(run_dir / "run", {"data.dataset_dir": str(run_dir), "data.val_targets": ["faces"]})
    entry.test_dataset = None
    try:
        entry.train()
    except PlscError as error:
        (run_dir / f"error{rank}.json").write_text(json.dumps(str(error)))
        raise SystemExit(3) from None


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd, report = Path(sys.argv[1]), {}
    for case, world_size in ((good, 1), (breaks, 1), (good, 2), (breaks, 2), (dies, 1), (cut_off, 2)):
        name = f"{case.__name__}{world_size}"
        (cwd / name).mkdir()
        report[name] = forked.run(world_size, cwd / name, lambda rank: case(rank, cwd / name), lone=True)  # noqa: B023
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
