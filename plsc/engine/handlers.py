"""Logs that say once, in one line, that their disk is full, and let the run go on to its next save.

Python's own print a stack trace for each line that cannot be written, and raise at the end what then hides the error
that ended the run.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO


class ToldOnce:
    """Says what is wrong with a file once, on stderr if there is one."""

    def __init__(self, name: str):
        self._name, self._was_told = name, False

    def tell(self, error: BaseException | None) -> None:
        if self._was_told:
            return
        self._was_told = True
        reason = getattr(error, "strerror", None) or str(error)
        try:
            text = f"plsc: warning: {self._name} cannot be written: {reason}; lines are lost"
            print(text, file=sys.stderr, flush=True)
        except (OSError, ValueError, AttributeError):
            return  # there is nobody to tell


class LogFile(logging.FileHandler):
    """A log file. Raises OSError where it cannot be opened."""

    def __init__(self, path: str):
        super().__init__(path, encoding="utf-8")
        self._told = ToldOnce(path)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging calls it so
        self._told.tell(sys.exc_info()[1])

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._told.tell(error)


class Terminal(logging.StreamHandler):
    """Lines for people, on a terminal or wherever it is redirected to."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self._told = ToldOnce(getattr(stream, "name", "the terminal"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging calls it so
        self._told.tell(sys.exc_info()[1])
