"""Parses untrusted JSON: invalid or extreme values raise ValueError before they are used."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 50
_MAX_BITS = 128


def loads(text: bytes | str) -> Any:
    """The value of a JSON text.

    Raises ValueError, with a short text on one line, for invalid JSON; for NaN, infinity and floats that overflow to
    infinity; for integers beyond 128 bits; for unpaired surrogates, which cannot be written to a log; and for values
    nested more than 50 levels deep.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(str(error) if isinstance(error, _Refused) else "not JSON") from None
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        level, depth = [part for item in level for part in _parts(item)], depth + 1
    return value


class _Refused(ValueError):
    pass


def _refuse(name: str) -> None:
    raise _Refused(f"holds {name}, which is not a JSON number")


def _parts(value: Any) -> list:
    """The elements of a list, or the keys and values of an object. Raises ValueError for a value that is not
    allowed."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is too large")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ValueError(f"holds a whole number of {value.bit_length()} bits")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds half a character")
    return []
