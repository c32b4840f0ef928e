"""The log of a run: a file per rank, the terminal of rank 0, a progress line, scalars as JSON lines."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import Any

from plsc.engine.run.handlers import LogFileHandler, TerminalHandler
from plsc.engine.run.scalars import SCALARS, Scalars
from plsc.errors import CheckpointError
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group
from plsc.terminal import is_terminal

LINE = "%(asctime)s %(levelname)s %(message)s"


class RunLog:
    """Writes ``<run_dir>/logs/rank_00000.log`` on each rank and ``<run_dir>/scalars.jsonl`` on rank 0.

    Raises CheckpointError on every rank where the directory cannot be written.
    """

    def __init__(self, run_dir: str, env: Environment, group: Group, scalars: str = "none"):
        self._logger = logging.getLogger("plsc")
        self._rank = env.rank
        self._bar = ProgressLine(env.rank == 0 and is_terminal(sys.stderr))
        self._handlers: list[logging.Handler] = []
        self._scalars = None
        self._made: list[str] = []  # paths that this log created, outermost first
        problem = self._open(os.path.abspath(run_dir), scalars)
        problems = [text for text in group.all_gather(problem) if text]
        if problems:
            self.close()
            raise CheckpointError(problems[0])

    @classmethod
    def silent(cls) -> RunLog:
        """A log that writes nothing, until the run has a directory."""
        log = cls.__new__(cls)
        log._logger, log._handlers, log._scalars = logging.getLogger("plsc"), [], None
        log._bar, log._rank, log._made = ProgressLine(False), 0, []
        return log

    def _open(self, run_dir: str, scalars: str) -> str | None:
        logs = os.path.join(run_dir, "logs")
        own = os.path.join(logs, f"rank_{self._rank:05d}.log")
        paths = [logs, own] if self._rank else [os.path.join(run_dir, SCALARS), logs, own]
        self._made = [path for path in paths if not os.path.exists(path)]
        try:
            os.makedirs(logs, exist_ok=True)
            self._handlers.append(LogFileHandler(own))
            if self._rank == 0:
                self._scalars = Scalars(run_dir, scalars)
                self._handlers.append(TerminalHandler(sys.stdout))
        except OSError as error:
            return (
                f"model_save_dir={run_dir!r}: cannot be written: {error.strerror}; make it writable or choose another"
            )
        for handler in self._handlers:
            handler.setFormatter(logging.Formatter(LINE))
            self._logger.addHandler(handler)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        return None

    def info(self, text: str) -> None:
        """Log a line; on rank 0 also to the terminal."""
        self._bar.clear()
        self._logger.info(text)

    def error(self, text: str) -> None:
        """Write the reason why this rank ends to its log file."""
        for handler in self._handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(logging.LogRecord("plsc", logging.ERROR, "", 0, text, None, None))

    def scalars(self, step: int, values: dict[str, Any]) -> None:
        """One JSON line {"step": ..., ...} on rank 0."""
        if self._scalars is not None:
            self._scalars.add(step, values)

    def progress(self, text: str, done: int, total: int) -> None:
        """Redraw the progress line, if there is a terminal."""
        self._made = []  # the run has begun: its files stay
        self._bar.draw(text, done, total)

    def discard(self) -> None:
        """Close, and delete the created files unless the run has begun: refused settings leave no files."""
        made, self._made = self._made, []
        self.close()
        for path in reversed(made):
            with contextlib.suppress(OSError):  # a directory that other ranks still write to
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)

    def close(self) -> None:
        """End the progress line, close the files."""
        self._bar.clear()
        for handler in self._handlers:
            self._logger.removeHandler(handler)
            handler.close()
        self._handlers = []
        if self._scalars is not None:
            self._scalars.close()
            self._scalars = None


class ProgressLine:
    """A line that is redrawn in place, at most ten times a second."""

    WIDTH = 24

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self._length = 0
        self._last = 0.0

    def draw(self, text: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._enabled or (now - self._last < 0.1 and done < total):
            return
        filled = self.WIDTH * done // max(1, total)
        line = f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] {done:,}/{total:,} {text}"
        self._write("\r" + line.ljust(self._length))
        self._length, self._last = len(line), now

    def clear(self) -> None:
        if self._enabled and self._length:
            self._write("\r" + " " * self._length + "\r")
            self._length = 0

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # the terminal was closed
            self._enabled = False


def clock(seconds: float) -> str:
    """hours:minutes:seconds."""
    whole = max(0, int(round(seconds)))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
