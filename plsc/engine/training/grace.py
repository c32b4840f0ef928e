"""Warns where a save takes longer than the grace period of the launcher, from SIGTERM to SIGKILL."""

from __future__ import annotations

import json
import os

from plsc.engine.run.start import Run
from plsc.files import safe_open
from plsc.files.atomic import write_bytes
from plsc.parallel.launcher import PADDLE_GRACE_SECONDS, grace_seconds

SLOW_SAVE = "slow_save.json"  # in the directory of a run whose last save was slow, for its next start
_SHARE = 0.8  # of the grace period, for the save: a stop also waits for the current step


class GracePeriod:
    """Compares the duration of saves, including the last one of the previous run, with the grace period."""

    def __init__(self, run: Run, limit: float | None = None):
        self._run = run
        self._limit = grace_seconds() if limit is None else limit
        self._path = os.path.join(run.config.model_save_dir, SLOW_SAVE)
        self._warned = False
        self._check(run.group.broadcast(_read(self._path) if run.env.rank == 0 else None))

    def saved(self, seconds: float) -> None:
        """Report the duration of a save. May be called by the writing thread."""
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
    """Record a slow save for the next start, which may use another launcher."""
    try:
        if seconds > _SHARE * PADDLE_GRACE_SECONDS:
            write_bytes(path, json.dumps({"seconds": round(seconds, 1)}).encode())
        elif os.path.exists(path):
            os.unlink(path)
    except OSError:
        pass  # the file is only a hint
