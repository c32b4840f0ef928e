"""Avoids that the executor of Paddle 3 serialises the whole program to text in every run."""

from __future__ import annotations

import functools
import logging

from plsc.backend.static import is_pir

log = logging.getLogger(__name__)


def cache_by_program(executor) -> None:
    """Make the cache of ``executor`` use the identity of a program as its key. The program must not change afterwards.

    Paddle 3 uses the text of the whole program as the key and writes it in every run: 2 to 4 ms (docs/history.md). The
    cache is private in Paddle: where a version does not have it, the executor is not changed, and the log says so once.
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
        "Paddle %s has an executor that PLSC does not know: each step takes some milliseconds longer",
        paddle.__version__,
    )


@functools.cache
def _call_type() -> type | None:
    """The type of cache entries with the program's identity as key; None where Paddle does not have its base class."""
    try:
        from paddle.base.executor import _ExecutorCache, _get_program_cache_key

        base = _ExecutorCache._CachedData
    except (ImportError, AttributeError):
        return None

    class Call(base):
        """One call of Executor.run. It keeps program and scope alive, so that their ids are not reused."""

        def __init__(self, program, feed, fetch_list, feed_var_name, fetch_var_name, place, scope, plan=None):
            self.program, self.feed, self.fetch_list, self.plan = program, feed, fetch_list, plan
            self.feed_var_name, self.fetch_var_name = feed_var_name, fetch_var_name
            self.place, self.scope = place, scope
            self.key = id(program), scope.raw_address(), _get_program_cache_key(feed, fetch_list)

        def __hash__(self):
            return hash(self.key)

    return Call
