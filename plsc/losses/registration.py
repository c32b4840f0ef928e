"""The decorator that registers losses by name, and its checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from plsc.errors import ConfigError
from plsc.losses.base import Loss
from plsc.losses.pairs import PairLoss
from plsc.registry import LOSSES
from plsc.signatures import require_signature

_ARGUMENTS = {
    "target": ("batch",), "update": ("batch",), "penalty": ("batch",), "others": ("cosine", "batch"), "states": (),
}  # fmt: skip
_OF_PAIRS = {"weights": ("scale",), "initial_bias": ("scale", "num_classes")}


def register_loss(name: str, *, source: str = "") -> Callable:
    """Decorator: registers a subclass of Loss as ``classifier.loss_type: name``. ``source``: the paper.

    Raises ConfigError for a name that is taken, another class, and methods that are missing or take other arguments.
    """

    def add(value: Any) -> Any:
        _check(f"loss {name!r}", value)
        return LOSSES.register(name, source=source)(value)

    return add


def _check(what: str, kind: Any) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Loss)):
        raise ConfigError(f"{what}: {getattr(kind, '__name__', kind)} must be a class derived from plsc.losses.Loss")
    if kind.target is Loss.target:
        raise ConfigError(f"{what}: {kind.__name__} has no method target(self, batch)")
    if (kind.states is Loss.states) != (kind.update is Loss.update):
        raise ConfigError(f"{what}: {kind.__name__} has only one of the methods states(self) and update(self, batch)")
    if issubclass(kind, PairLoss) and not kind.normalised:
        raise ConfigError(f"{what}: {kind.__name__} is a PairLoss, which judges cosines: it must be normalised")
    if issubclass(kind, PairLoss) and kind.initial_bias is PairLoss.initial_bias:
        raise ConfigError(f"{what}: {kind.__name__} has no method initial_bias(self, scale, num_classes)")
    if not kind.normalised and any(
        getattr(kind, method) is not getattr(Loss, method) for method in ("others", "penalty", "states")
    ):
        raise ConfigError(f"{what}: {kind.__name__} is not normalised: it may have the method target only")
    pairs = _OF_PAIRS if issubclass(kind, PairLoss) else {}
    for method, arguments in {**_ARGUMENTS, **pairs}.items():
        given = inspect.signature(getattr(kind, method)).parameters.values()
        required = [one.name for one in given if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        if len(required) != 1 + len(arguments):
            raise ConfigError(
                f"{what}: {kind.__name__}.{method} takes ({', '.join(required)}); it must take "
                f"({', '.join(('self', *arguments))})"
            )
    require_signature(what, kind)
