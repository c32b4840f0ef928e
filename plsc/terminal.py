"""Writing to the standard streams, which may be closed or None: `2>&-`, a service, a closed terminal.

A stream that cannot be written to never ends a run.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_GONE = (OSError, ValueError, AttributeError)  # a pipe without a reader, a stream that was closed, None


def print_stderr(line: str) -> None:
    """Print a line to stderr, if it is open."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except _GONE:
        pass


def print_stdout(text: str) -> None:
    """Print text and a newline to stdout, whose reader may be gone: `plsc list | head`."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except _GONE:
        pass


def write_stderr(line: str) -> None:
    """Write a line to stderr from a signal handler, where Python's streams are not safe to use."""
    try:
        os.write(2, line.encode() + b"\n")
    except OSError:
        pass


def flush_or_discard() -> None:
    """Flush both streams at the end of the process; discard what cannot be written, or Python would exit with 120."""
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
    """Flush both streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except _GONE:
            pass


def is_terminal(stream: Any) -> bool:
    """True if the stream is a terminal."""
    try:
        return bool(stream.isatty())
    except _GONE:
        return False


def open_standard_streams() -> None:
    """Open closed descriptors 0, 1 and 2 as /dev/null.

    Otherwise the next opened file would get the number: a checkpoint as descriptor 2 would receive what Paddle's C++
    code writes to stderr.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
