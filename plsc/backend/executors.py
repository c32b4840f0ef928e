"""The executor of Paddle 3, which writes a program out as text in each run unless it is told not to."""

from __future__ import annotations

import functools
import logging

from plsc.backend.static import is_pir

log = logging.getLogger(__name__)


def cache_by_program(executor) -> None:
    """Let ``executor`` find what it made of a program by the program itself, which then must not change any more.

    Paddle 3 writes the whole program out as text in every run, to look for that: 2 to 4 ms (docs/history.md). This
    is private in Paddle: with one that has it no more the executor stays as it is, and the log says so, once.
    """
    if not is_pir():
        return
    kind = _call_type()
    if kind is not None and hasattr(getattr(executor, "_executor_cache", None), "_CachedData"):
        executor._executor_cache._CachedData = kind
    else:
        _warn_slower()


@functools.cache
def _warn_slower() -> None:
    import paddle

    log.warning(
        "Paddle %s has another executor than those known to PLSC: each step takes some milliseconds longer",
        paddle.__version__,
    )


@functools.cache
def _call_type() -> type | None:
    """The type of a call that is known by its program; None where Paddle has not the parts that it is made of."""
    try:
        from paddle.base.executor import _ExecutorCache, _get_program_cache_key

        base = _ExecutorCache._CachedData
    except (ImportError, AttributeError):
        return None

    class Call(base):
        """One call of Executor.run. In the cache it keeps program and scope alive: no other gets their ids."""

        def __init__(self, program, feed, fetch_list, feed_var_name, fetch_var_name, place, scope, plan=None):
            self.program, self.feed, self.fetch_list, self.plan = program, feed, fetch_list, plan
            self.feed_var_name, self.fetch_var_name = feed_var_name, fetch_var_name
            self.place, self.scope = place, scope
            self.key = id(program), scope.raw_address(), _get_program_cache_key(feed, fetch_list)

        def __hash__(self):
            return hash(self.key)

    return Call
