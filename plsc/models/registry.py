"""The registry of models: register_model and build_model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plsc.errors import ConfigError, PlscError, reason_of
from plsc.models.base_model import BaseModel, require_build_network
from plsc.registry import MODELS
from plsc.signatures import accepted, problem_with_options, require_signature


def register_model(name: str, *, source: str = "") -> Callable:
    """Decorator that registers a class or function for ``build_model(name, ...)``. source: the paper.

    It is called with the settings of the section ``model`` that it has as parameters, and with ``model.options``.
    Raises ConfigError for a name that is already registered, and for an invalid model.
    """
    add = MODELS.register(name, source=source)

    def checked(value: Any) -> Any:
        _check(name, value)
        return add(value)

    return checked


def _check(name: str, value: Any) -> None:
    what = f"model {name!r}"
    require_signature(what, value)
    if isinstance(value, type):
        if not issubclass(value, BaseModel):
            raise ConfigError(f"{what}: {value.__qualname__} is not a subclass of plsc.models.BaseModel; derive it")
        require_build_network(what, value.build_network, skip=1)


def list_models() -> list[str]:
    """The registered names, sorted."""
    return sorted(MODELS.names())


def build_model(name: str, **options: Any) -> BaseModel:
    """Build the model registered as ``name`` with these options, and with ``name`` if it has that parameter.

    Options of the built-in models: embedding_size, image_shape (C, H, W), data_format, dropout, base_width.
    Raises ConfigError for an unknown name, an unknown option, and for exceptions of its constructor.
    """
    if name not in MODELS:
        raise ConfigError(f"model.name: {name!r} {MODELS.unknown_message(name)}")
    factory = MODELS.find(name)
    if accepted(factory, ["name"]):
        options = {"name": name, **options}
    problem = problem_with_options(factory, options)
    if problem:
        raise ConfigError(f"model {name!r}: {problem}")
    try:
        model = factory(**options)
    except PlscError:
        raise
    except Exception as error:
        raise ConfigError(f"model {name!r}: its constructor raised {reason_of(error)}") from error
    if not isinstance(model, BaseModel):
        raise ConfigError(f"model {name!r}: its factory returned {type(model).__name__}, expected a plsc BaseModel")
    return model
