"""Models by name: a decorator that registers, a function that builds."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from plsc.errors import ConfigError
from plsc.models.base_model import BaseModel

_FACTORIES: dict[str, Callable[..., BaseModel]] = {}


def register_model(name: str) -> Callable:
    """Decorator: make a class or function buildable as ``build_model(name, ...)``.

    It is called with the keywords that were given to ``build_model``, the name among them. A name that is
    taken raises ConfigError.
    """

    def add(factory: Callable[..., BaseModel]) -> Callable[..., BaseModel]:
        if name in _FACTORIES:
            taken = _FACTORIES[name].__qualname__
            raise ConfigError(f"register_model: {name!r} is taken by {taken}; choose another name")
        _FACTORIES[name] = factory
        return factory

    return add


def list_models() -> list[str]:
    """The registered names, sorted."""
    return sorted(_FACTORIES)


def build_model(name: str, **options: Any) -> BaseModel:
    """The model registered as ``name``; ``options`` are the keys of the config's section ``model``.

    Options of the built-in nets: embedding_size, image_shape (C, H, W), data_format, dropout, base_width.
    Raises ConfigError for an unknown name or an option that the model does not take.
    """
    if name not in _FACTORIES:
        near = difflib.get_close_matches(str(name), _FACTORIES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"model.name: {name!r} is not a model; allowed: {', '.join(list_models())}{hint}")
    factory = _FACTORIES[name]
    try:
        inspect.signature(factory).bind(name=name, **options)
    except TypeError as error:
        raise ConfigError(f"model {name!r}: {error}; the options given are name, {', '.join(options)}") from None
    model = factory(name=name, **options)
    if not isinstance(model, BaseModel):
        raise ConfigError(f"model {name!r}: its factory returned {type(model).__name__}, expected a plsc BaseModel")
    return model
