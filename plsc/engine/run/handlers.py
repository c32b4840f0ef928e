"""Log handlers that report once, in one line, that the disk is full, and let the run continue.

Python's handlers print a stack trace for each line that cannot be written, and raise at the end an error that hides the
one that ended the run.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from typing import TextIO

from plsc.terminal import print_stderr


class WarnOnce:
    """Reports an error of a file once, on stderr."""

    def __init__(self, name: str):
        self._name, self._warned = name, False

    def warn(self, error: BaseException | None) -> None:
        if self._warned:
            return
        self._warned = True
        reason = getattr(error, "strerror", None) or str(error)
        print_stderr(f"plsc: warning: {self._name} cannot be written: {reason}; lines are lost")


class LogFileHandler(logging.FileHandler):
    """A log file. Raises OSError where it cannot be opened."""

    def __init__(self, path: str):
        super().__init__(path, encoding="utf-8")
        self._warn_once = WarnOnce(path)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging calls it so
        self._warn_once.warn(sys.exc_info()[1])

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._warn_once.warn(error)


class TerminalHandler(logging.StreamHandler):
    """Prints log lines to a stream as long as it can be written to."""

    def __init__(self, stream: TextIO | None):
        super().__init__(stream)
        self.stream = stream  # where that is None, logging takes stderr
        self._warn_once = WarnOnce(getattr(stream, "name", "the terminal"))

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None:
            super().emit(record)

    def flush(self) -> None:
        try:
            super().flush()
        except (OSError, ValueError, AttributeError) as error:
            self._handle_write_error(error)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging calls it so
        self._handle_write_error(sys.exc_info()[1])

    def _handle_write_error(self, error: BaseException | None) -> None:
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EIO):
            self._warn_once.warn(error)
            return
        # The reader is gone: `| head`, a closed terminal. Discard the buffer, or Python would exit with status 120.
        stream, self.stream = self.stream, None
        with contextlib.suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nowhere:
            if isinstance(error, OSError):
                os.dup2(nowhere.fileno(), stream.fileno())
