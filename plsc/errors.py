"""Errors a user can cause. Each message is one line: the field, the value, what is allowed, how to fix it."""

from __future__ import annotations

import os
import sys
import traceback


class PlscError(Exception):
    """Base of every error that PLSC raises for a reason outside its own code."""


class ConfigError(PlscError, ValueError):
    """A configuration key, type, range or combination that cannot work."""


class DataError(PlscError):
    """A label list, an image or a verification set that cannot be used."""


class CheckpointError(PlscError):
    """A checkpoint that cannot be written, is damaged, or does not match the run."""


class ExportError(PlscError):
    """An exported model that cannot be written or read, or differs from the trained model."""


class LaunchError(PlscError):
    """The process was launched wrongly: ranks, devices or the version of Paddle."""


class TrainingError(PlscError):
    """Training failed: a loss that is not finite, or another rank that failed."""


class PeerError(TrainingError):
    """Communication with the other ranks failed, most likely because one of them has ended."""


class VerificationError(PlscError):
    """The run was trained and saved, but verification failed. ``result``: what ``train`` would have returned."""

    def __init__(self, message: str, result: object = None):
        super().__init__(message)
        self.result = result


_BANNERS = ("-", "C++", "0 ", "1 ", "In user code:")


def first_line(error: BaseException) -> str:
    """The first informative line of an error; Paddle's errors begin with banners, C++ traces and "In user code:"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if "Error:" in line or "Error Message" not in line and not line.startswith(_BANNERS):
            return line[:300]
    return type(error).__name__


def reason_of(error: BaseException) -> str:
    """`KeyError: 'x' (my_data.py:12)`, on one line: for an exception of a user's code, whose last line is named.

    Lines of PLSC and of Paddle are passed over, unless there are no others.
    """
    text = " ".join(str(error).split())
    if "C++ Traceback" in text or "Error Message" in text:
        text = " ".join(first_line(error).split())
    text = text[:300]
    # not extract_tb, which sys.tracebacklimit cuts: it is 0 while a program is built, see plsc.backend.static.building
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno or 0))
    not_theirs = tuple(os.path.join(folder, "") for folder in (os.path.dirname(__file__), *_folders_of("paddle")))
    theirs = [frame for frame in frames if not frame[0].startswith((*not_theirs, "<frozen"))] or frames
    where = f" ({os.path.basename(theirs[-1][0])}:{theirs[-1][1]})" if theirs else ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _folders_of(package: str) -> list[str]:
    """Where a package lies, if it was imported."""
    file = getattr(sys.modules.get(package), "__file__", None)
    return [os.path.dirname(file)] if file else []
