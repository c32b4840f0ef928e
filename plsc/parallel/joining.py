"""The control connections of this process, opened when it starts: what goes wrong later reaches the other ranks."""

from __future__ import annotations

import atexit
import functools
from dataclasses import replace

from plsc.errors import PlscError
from plsc.parallel.control import Control
from plsc.parallel.environment import Environment
from plsc.parallel.hub import Hub
from plsc.parallel.spoke import Spoke

LEAVE_SECONDS = 60


def control_of(env: Environment) -> Control:
    """The control connections of this process, which is one of several ranks. The same object for every device."""
    return _open(replace(env, device="cpu", device_id=0))


@functools.cache
def _open(env: Environment) -> Control:
    control = Hub(env) if env.rank == 0 else Spoke(env)
    atexit.register(control.close, LEAVE_SECONDS)
    return control


def join() -> None:
    """Begin to connect with the other ranks, if there are any, and return at once.

    Called as early as possible, before Paddle is imported: from now on the other ranks hear of the end of this process,
    and this process ends when another rank has failed.
    """
    _own()


def report(message: str) -> None:
    """Tell the other ranks, if there are any, that this process ends by an error, and wait until they know of it."""
    control = _own()
    if control is not None:
        control.fail(message)
        control.linger()


def report_unless_joined(message: str) -> None:
    """The same, unless the run of this process has begun, which then has told the others itself."""
    control = _own()
    if control is not None and not control.has_joined:
        control.fail(message)
        control.linger()


def _own() -> Control | None:
    try:
        env = Environment.from_launch()
    except PlscError:
        return None  # said when the ranks are needed
    return control_of(env) if env.world_size > 1 else None
