"""A training under a launcher, for test_launchers.py: python -m plsc.launch ... tests/dist/launched.py DIR SECONDS

Each save takes SECONDS more than it would; DIR/step_N appears on rank 0 when step N (from 1) is made.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.dist.tiny_run import make_entry


def main() -> None:
    from plsc import checkpoint
    from plsc.engine.program.session import Session

    root, seconds = Path(sys.argv[1]), float(sys.argv[2])
    save, step = checkpoint.save, Session.step

    def slow_save(*args):
        time.sleep(seconds)
        return save(*args)

    def watched(self, number, *args):
        results = step(self, number, *args)
        if self.env.rank == 0:
            (root / f"step_{number + 1}").touch()
        time.sleep(0.05)
        return results

    checkpoint.save, Session.step = slow_save, watched
    options = {"with_test": False, "train_steps": 100000, "save_period": 0, "data.num_workers": 1}
    entry = make_entry(root / "run", options)
    entry.train_dataset = [entry.train_dataset[index % 52] for index in range(4000)]  # no epoch ends meanwhile
    entry.train()


if __name__ == "__main__":
    main()
