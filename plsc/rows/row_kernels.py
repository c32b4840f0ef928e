"""The operations of row_kernels.cc, which bring sampled class centres up to date and update them, on CPUs: two for
momentum and two for Adam.

``table`` [2 L, E] float32 holds weight and velocity of class c in its rows 2 c and 2 c + 1, so that both are read and
written together; with Adam [3 L, E] weight, first and second moment. Paddle's operations need several passes over the
rows, partly with one thread (docs/history.md).
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from plsc.backend import static
from plsc.backend.compiler import CompileError, Library, compiled_library

SOURCE = Path(__file__).with_suffix(".cc")

log = logging.getLogger(__name__)


@functools.cache
def available() -> bool:
    """True where the operations can be used in this process; compiles them if they are not in the cache.

    If they cannot be used, the log says why, once, and what helps.
    """
    try:
        if not static.supports_custom_operations():
            raise CompileError("this version of Paddle has no known interface for custom operations")
        _load(compiled_library(SOURCE))
    except CompileError as error:
        log.warning("sampled rows are updated by Paddle's operations, which is slower: %s", error)
        return False
    return True


def _load(library: Library) -> None:
    try:
        static.load_custom_operations(library.load_path)
    except (RuntimeError, OSError, ValueError) as error:  # a long text, with little about this library
        log.debug("%s: %s", library.path, error)
        raise CompileError(f"Paddle cannot load {library.path} (delete it to compile it again)") from None


def bring_rows(table, index, factors) -> tuple:
    """(factors[:, 0] * weight + factors[:, 1] * velocity [S, E], the squared length of each [S, 1]) of the classes
    ``index`` [S] int64; ``factors`` [S, 2]."""
    inputs = {"Table": table, "Index": index, "Factors": factors}
    return static.custom_operation("plsc_bring_rows", inputs, {"Rows": None, "Squares": None})


def move_rows_(table, index, steps, gradient, learning_rate) -> None:
    """In place, for the classes ``index`` [S] int64: (weight, velocity) := M (weight, velocity) + (-learning_rate, 1) *
    gradient. ``steps`` [S, 4]: the matrix M of each as (ww, wv, vw, vv); ``gradient`` [S, E]; ``learning_rate`` [1]."""
    inputs = {"Table": table, "Index": index, "Steps": steps, "Gradient": gradient, "Rate": learning_rate}
    static.custom_operation("plsc_move_rows", inputs, {"Moved": table})


def bring_adam_rows(table, index, factors, constants) -> tuple:
    """(keep * weight - m * sum_q W_q / (exp(centre + half * point_q) * sqrt(v) + epsilon) [S, E], the squared length of
    each [S, 1]) of the classes ``index`` [S] int64. ``factors`` [S, 5 + n]: (of m, of v, keep, centre, half, W_1, ...)
    of plsc.rows.optimizers.missed_adam; half is 0 where nothing was missed. ``constants`` [1 + n]: epsilon, the
    points."""
    inputs = {"Table": table, "Index": index, "Factors": factors, "Constants": constants}
    return static.custom_operation("plsc_bring_adam_rows", inputs, {"Rows": None, "Squares": None})


def move_adam_rows_(table, index, now, factors, gradient, step) -> None:
    """In place, for the classes ``index`` [S] int64, with g = gradient - factors[:, 2] * now:

        m := beta1 * factors[:, 0] * m + (1 - beta1) * g
        v := beta2 * factors[:, 1] * v + (1 - beta2) * g^2
        weight := now - rate * (m * unbias1 / (sqrt(v * unbias2) + epsilon) + decay * now)

    ``now``, ``gradient`` [S, E]; ``factors`` [S, 3]; ``step`` [9]: (beta1, 1 - beta1, beta2, 1 -
    beta2, epsilon, decay, rate, unbias1, unbias2).
    """
    inputs = {"Table": table, "Index": index, "Now": now, "Factors": factors, "Gradient": gradient, "Step": step}
    static.custom_operation("plsc_move_adam_rows", inputs, {"Moved": table})
