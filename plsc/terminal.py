"""The standard streams, which may be closed, gone or None: `2>&-`, a service, a terminal that was shut.

What goes there is for whoever looks on: that nobody does never ends a run.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_GONE = (OSError, ValueError, AttributeError)  # a pipe without a reader, a stream that was closed, None


def print_stderr(line: str) -> None:
    """A line on stderr, if there is one."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except _GONE:
        pass


def print_stdout(text: str) -> None:
    """Text and a line end on stdout, which nobody may read any more: `plsc list | head`."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except _GONE:
        pass


def write_stderr(line: str) -> None:
    """A line on stderr from a signal's handler, where Python's own streams may be in the middle of a line."""
    try:
        os.write(2, line.encode() + b"\n")
    except OSError:
        pass


def flush_or_discard() -> None:
    """Before the end of the process: what nobody reads goes nowhere, or Python would end it with status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except _GONE:
            pass


def flush() -> None:
    """What was printed so far leaves the process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except _GONE:
            pass


def is_terminal(stream: Any) -> bool:
    """True if somebody can watch a line change there."""
    try:
        return bool(stream.isatty())
    except _GONE:
        return False


def open_standard_streams() -> None:
    """Give what is closed of the descriptors 0, 1 and 2 to /dev/null.

    The next file that is opened would get the number else: a checkpoint as descriptor 2 would hold what Paddle's C++
    side writes to stderr.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
