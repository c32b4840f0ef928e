"""Does a save fit into the time that the launcher leaves when it is asked to stop? Said where it does not."""

from __future__ import annotations

import json
import os

from plsc.engine.run.start import Run
from plsc.files import safe_open
from plsc.files.atomic import write_bytes
from plsc.parallel.launcher import PADDLE_GRACE_SECONDS, grace_seconds

SLOW_SAVE = "slow_save.json"  # in the directory of a run whose last save took long, for its next start
_SHARE = 0.8  # of the time, for the save: a stop also waits for the step that is under way


class GracePeriod:
    """Watches how long saves take, from the run before on."""

    def __init__(self, run: Run, limit: float | None = None):
        self._run = run
        self._limit = grace_seconds() if limit is None else limit
        self._path = os.path.join(run.config.model_save_dir, SLOW_SAVE)
        self._warned = False
        self._check(run.group.broadcast(_read(self._path) if run.env.rank == 0 else None))

    def saved(self, seconds: float) -> None:
        """A save took so long. May be called by the thread that writes."""
        self._check(seconds)
        if self._run.env.rank == 0:
            _record(self._path, seconds)

    def _check(self, seconds: float) -> None:
        if self._limit is not None and seconds > _SHARE * self._limit and not self._warned:
            self._warned = True
            self._run.log.info(
                f"WARNING: the last save took {seconds:.0f} s, and Paddle's launcher kills ranks {self._limit:.0f} s "
                "after SIGTERM: a stop would save nothing; start with `python -m plsc.launch`, which waits"
            )


def _read(path: str) -> float:
    try:
        return float(json.loads(safe_open.read_bytes(path, safe_open.SETTINGS))["seconds"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0.0


def _record(path: str, seconds: float) -> None:
    """Keep what is worth a word at the next start, which may be by another launcher."""
    try:
        if seconds > _SHARE * PADDLE_GRACE_SECONDS:
            write_bytes(path, json.dumps({"seconds": round(seconds, 1)}).encode())
        elif os.path.exists(path):
            os.unlink(path)
    except OSError:
        pass  # a note, no more
