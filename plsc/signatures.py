"""The arguments of a registered class or function: the settings that it accepts, and its own options.

Its signature decides: it gets the settings whose names are among its parameters; its other parameters are options,
which a user sets by name. One with ``**keywords`` accepts all settings and any option.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from plsc.errors import ConfigError

# The annotations whose values are checked; others are not.
_TYPES: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, numbers.Integral) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "Sequence[float]": lambda value: isinstance(value, (list, tuple)) and all(map(_TYPES["float"], value)),
}
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def require_signature(what: str, value: Any, first: tuple[str, ...] = ()) -> None:
    """Raise ConfigError unless ``value`` can be called with the arguments ``first`` by position and all others by name.

    what: for the message ("augmentation 'blur'"). first: the names of the positional arguments ("image", "generator").
    """
    wanted = f"it must take {', '.join(first)}, then options by name" if first else "it must take its options by name"
    if not callable(value):
        raise ConfigError(f"{what}: is {type(value).__name__}, neither a class nor a function")
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (ValueError, TypeError):
        raise ConfigError(f"{what}: has no signature that Python knows; wrap it into a function of yours") from None
    signature = ", ".join(str(parameter).partition("=")[0].partition(":")[0] for parameter in parameters)
    any_place = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    by_place = [parameter for parameter in parameters if parameter.kind in _BY_PLACE]
    by_name_only = any(parameter.kind is parameter.POSITIONAL_ONLY for parameter in by_place[len(first) :])
    if by_name_only or (len(by_place) < len(first) and not any_place):
        raise ConfigError(f"{what}: takes ({signature}); {wanted}")


def accepted(value: Any, names: Iterable[str], skip: int = 0) -> set[str]:
    """The settings that ``value`` accepts; all for one with ``**keywords``. skip: how many arguments are positional."""
    parameters = _named(value, skip)
    return set(names) if _takes_all(value) else {name for name in names if name in parameters}


def select_arguments(value: Any, settings: Mapping[str, Any], skip: int = 0) -> dict[str, Any]:
    """The settings to pass to ``value``; one that is None only where the parameter has no default."""
    parameters, names = _named(value, skip), accepted(value, settings, skip)
    has_default = {name for name, one in parameters.items() if one.default is not one.empty}
    return {name: settings[name] for name in names if settings[name] is not None or name not in has_default}


def problem_with_options(
    value: Any, options: Mapping[str, Any], settings: Mapping[str, str] | None = None, skip: int = 0
) -> str:
    """The error in options for ``value``, on one line; "" for valid options.

    settings: those that it may accept, as {name of the parameter: its key}. skip: number of positional arguments.
    """
    settings, parameters = settings or {}, _named(value, skip)
    own = {name: parameter for name, parameter in parameters.items() if name not in settings}
    for name, option in options.items():
        if name in settings:
            return f"{name} is a setting of its own: {settings[name]}"
        if name not in own:
            if _takes_all(value):
                continue
            return f"there is no option {name}; {_describe(own)}"
        if not _fits(own[name], option):
            return f"{name}={option!r:.80} must be {_annotation(own[name])}; {_describe(own)}"
    missing = [name for name, one in own.items() if one.default is one.empty and name not in options]
    return f"the option {missing[0]} is missing; {_describe(own)}" if missing else ""


def _parameters(value: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(value).parameters.values())


def _named(value: Any, skip: int) -> dict[str, inspect.Parameter]:
    return {one.name: one for one in _parameters(value)[skip:] if one.kind in _BY_NAME}


def _takes_all(value: Any) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in _parameters(value))


def _describe(own: Mapping[str, inspect.Parameter]) -> str:
    if not own:
        return "it takes none"
    return "its options: " + ", ".join(map(_describe_parameter, own.values()))


def _describe_parameter(parameter: inspect.Parameter) -> str:
    words = [] if parameter.annotation is parameter.empty else [_annotation(parameter)]
    words += [] if parameter.default is parameter.empty else [f"default {parameter.default!r:.40}"]
    return f"{parameter.name} ({', '.join(words)})" if words else parameter.name


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _fits(parameter: inspect.Parameter, value: Any) -> bool:
    kinds = [kind.strip() for kind in _annotation(parameter).split("|")]
    if value is None and "None" in kinds:
        return True
    kinds = [kind for kind in kinds if kind != "None"]
    return not all(kind in _TYPES for kind in kinds) or any(_TYPES[kind](value) for kind in kinds)
