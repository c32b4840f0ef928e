"""Paddle asks for Python's whole stack at every operation that a program gets, to decorate its errors with it.

That is a quarter of the time that building takes, and more below pytest's fifty frames; no test reads it.
"""

from __future__ import annotations

import functools
import sys
import traceback


@functools.cache
def use() -> None:
    """From now on `traceback.extract_stack()` in this process gives the innermost frame, unless asked for a number."""
    whole = traceback.extract_stack

    def extract_stack(f=None, limit=None):
        return whole(f or sys._getframe(1), 1 if limit is None else limit)

    traceback.extract_stack = extract_stack
