"""The one door to Paddle's private side: what lies behind it may be gone in another 3.x.

``find`` where there is another way, ``need`` where there is none; ``fast`` takes the private operation, or the slower
public way with a line in the log. tests/backend/test_private.py takes names away and trains.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import paddle

from plsc.errors import LaunchError
from plsc.extras import install

TESTED = ("2.6.2", "3.3.1")

log = logging.getLogger(__name__)


class Missing(LaunchError):
    """What this Paddle has no more, and PLSC cannot do without."""

    def __init__(self, what: str):
        super().__init__(
            f"PaddlePaddle {paddle.__version__} has no {what}, which PLSC cannot do without; PLSC is tested with "
            f"{' and '.join(TESTED)}: {install('cpu')}, or {install('gpu')} for GPUs"
        )


def find(name: str) -> Any | None:
    """What Paddle has under ``name``, such as "_C_ops.scatter_" or "base.core.TCPStore"; None where it has nothing."""
    value: Any = paddle
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return value


def require(name: str) -> Any:
    """What Paddle has under ``name``. Raises Missing where it has nothing, and PLSC no other way."""
    value = find(name)
    if value is None:
        raise Missing(f"paddle.{name}")
    return value


def fast_or_public(name: str, arguments: tuple, slow: Callable[[], Any]) -> Any:
    """The result of Paddle's private operation ``name``; where this Paddle has it no more, or it takes other arguments,
    that of ``slow``, and the log says so once."""
    operation = find(name)
    if operation is not None:
        try:
            return operation(*arguments)
        except (TypeError, ValueError):
            if paddle.__version__ in TESTED:
                raise  # these arguments are right there: it is what they hold
    warn_missing(name, "a slower public way is taken")
    return slow()


def set_flag(name: str, value: Any, without: str | None = None) -> None:
    """Set one of Paddle's flags. Where this Paddle has it no more the log says once what comes of it (``without``).
    Raises Missing where nothing is given."""
    try:
        paddle.set_flags({name: value})
    except ValueError:
        if without is None:
            raise Missing(f"flag {name}") from None
        warn_missing(name, without)


@functools.cache
def warn_missing(name: str, consequence: str) -> None:
    """A line in the log, once in a process."""
    log.warning(
        "Paddle %s has no paddle.%s as PLSC knows it from %s: %s",
        paddle.__version__, name, " and ".join(TESTED), consequence,
    )  # fmt: skip
