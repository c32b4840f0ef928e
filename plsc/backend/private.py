"""The only access to Paddle's private API, any part of which may be missing in another 3.x.

``find`` where there is an alternative, ``require`` where there is none; ``fast_or_public`` uses the private operation
or a slower public one, with a line in the log. tests/backend/test_private.py removes names and trains.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import paddle

from plsc.backend import flags
from plsc.errors import LaunchError
from plsc.extras import install

TESTED = ("2.6.2", "3.3.1")

log = logging.getLogger(__name__)


class Missing(LaunchError):
    """A private name that PLSC needs and this Paddle does not have."""

    def __init__(self, what: str):
        super().__init__(
            f"PaddlePaddle {paddle.__version__} has no {what}, which PLSC needs; PLSC is tested with "
            f"{' and '.join(TESTED)}: {install('cpu')}, or {install('gpu')} for GPUs"
        )


def find(name: str) -> Any | None:
    """The attribute ``name`` of Paddle, such as "_C_ops.scatter_" or "base.core.TCPStore"; None if it does not
    exist."""
    value: Any = paddle
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return value


def require(name: str) -> Any:
    """The attribute ``name`` of Paddle. Raises Missing if it does not exist."""
    value = find(name)
    if value is None:
        raise Missing(f"paddle.{name}")
    return value


def fast_or_public(name: str, arguments: tuple, public: Callable[[], Any]) -> Any:
    """The result of Paddle's private operation ``name``. If it does not exist, or takes other arguments, the result of
    ``public()``, and the log says so once."""
    operation = find(name)
    if operation is not None:
        try:
            return operation(*arguments)
        except (TypeError, ValueError):
            if paddle.__version__ in TESTED:
                raise  # there the arguments are right in number and type; their values are wrong
    warn_missing(name, "a slower public operation is used")
    return public()


def set_flag(name: str, value: Any, without: str | None = None) -> None:
    """Set one of Paddle's flags. If it does not exist, the log says once what follows (``without``); raises Missing if
    that is None. The log says once where it replaces what the environment says."""
    try:
        given = flags.in_environment(name)
        if given is not None and paddle.get_flags(name)[name] != value:
            _warn_replaced(name, given, value)
        paddle.set_flags({name: value})
    except ValueError:
        if without is None:
            raise Missing(f"flag {name}") from None
        warn_missing(name, without)


@functools.cache
def _warn_replaced(name: str, given: str, value: Any) -> None:
    log.warning("%s=%s of the environment is replaced by %s, which PLSC needs", name, given, value)


@functools.cache
def warn_missing(name: str, consequence: str) -> None:
    """Log a warning, once per process and name."""
    log.warning(
        "Paddle %s has no paddle.%s as in %s: %s",
        paddle.__version__, name, " and ".join(TESTED), consequence,
    )  # fmt: skip
