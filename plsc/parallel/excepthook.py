"""Prints errors that a user can cause as one line that names the rank, instead of a stack trace."""

from __future__ import annotations

import sys
from types import TracebackType

from plsc.errors import PlscError, reason_of
from plsc.parallel import joining
from plsc.terminal import print_stderr

# EX_DATAERR of sysexits.h: training finished and was saved, but a verification failed (tools/train.py)
EXIT_UNVERIFIED = 65


def one_line(error: PlscError, rank: int | None) -> str:
    """ "plsc: error: [rank 1] message"; without "[rank 1]" where the rank is unknown."""
    message = " ".join(line.strip() for line in str(error).splitlines())
    return f"plsc: error: {message}" if rank is None else f"plsc: error: [rank {rank}] {message}"


def install_excepthook() -> None:
    """Print an uncaught PlscError, and Ctrl-C within PLSC, as one line on stderr. The previous hook handles the rest.
    Every uncaught error is reported to the other ranks, if there are any.

    The process still ends with status 1, or by SIGINT. Calling it again has no effect.
    """
    previous = sys.excepthook
    if getattr(previous, "prints_plsc_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, PlscError):
            print_stderr(one_line(error, _rank()))
        elif isinstance(error, KeyboardInterrupt) and _passed_through_plsc(trace):
            print_stderr("plsc: stopped by Ctrl-C; what was saved before is intact")
        else:
            previous(kind, error, trace)
        try:
            joining.report(_reason(error))
        except KeyboardInterrupt:
            pass  # the user does not want to wait until the other ranks know

    setattr(hook, "prints_plsc_errors", True)  # noqa: B010  (for type checkers, a function has no such attribute)
    sys.excepthook = hook


def _reason(error: BaseException) -> str:
    if isinstance(error, PlscError):
        return str(error)
    return "stopped by Ctrl-C" if isinstance(error, KeyboardInterrupt) else reason_of(error)


def _passed_through_plsc(trace: TracebackType | None) -> bool:
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).startswith("plsc."):
            return True
        trace = trace.tb_next
    return False


def _rank() -> int | None:
    """The rank of this process, or None where the launch environment is invalid."""
    try:
        from plsc.parallel.environment import Environment

        return Environment.from_launch().rank
    except (ImportError, PlscError):
        return None
