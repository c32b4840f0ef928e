"""Models by name: a decorator that registers, a function that builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from plsc.errors import ConfigError
from plsc.models.base_model import BaseModel
from plsc.registry import MODELS


def register_model(name: str, *, source: str = "") -> Callable:
    """Decorator: make a class or function buildable as ``build_model(name, ...)``. ``source``: the paper.

    It is called with the keywords that were given to ``build_model``, the name among them. A name that is
    taken raises ConfigError.
    """
    return MODELS.register(name, source=source)


def list_models() -> list[str]:
    """The registered names, sorted."""
    return sorted(MODELS.names())


def build_model(name: str, **options: Any) -> BaseModel:
    """The model registered as ``name``; ``options`` are the keys of the config's section ``model``.

    Options of the built-in nets: embedding_size, image_shape (C, H, W), data_format, dropout, base_width.
    Raises ConfigError for an unknown name or an option that the model does not take.
    """
    if name not in MODELS:
        raise ConfigError(f"model.name: {name!r} {MODELS.unknown(name)}")
    factory = MODELS.find(name)
    try:
        inspect.signature(factory).bind(name=name, **options)
    except TypeError as error:
        raise ConfigError(f"model {name!r}: {error}; the options given are name, {', '.join(options)}") from None
    model = factory(name=name, **options)
    if not isinstance(model, BaseModel):
        raise ConfigError(f"model {name!r}: its factory returned {type(model).__name__}, expected a plsc BaseModel")
    return model
