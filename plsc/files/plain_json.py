"""JSON that somebody else may have written: what cannot be meant is a ValueError, before anything is done with it."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_DEPTH = 50
_MOST_BITS = 128


def loads(text: bytes | str) -> Any:
    """The value of a JSON text.

    Raises ValueError, whose text is short and on one line, for what is no JSON; for NaN and infinities, which JSON has
    not, and numbers that become one; for whole numbers beyond 128 bits; for halves of characters, which no log can
    hold; and for values nested more than 50 deep.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(str(error) if isinstance(error, _Refused) else "not JSON") from None
    level, depth = [value], 0
    while level:
        if depth > MOST_DEPTH:
            raise ValueError("nested too deeply")
        level, depth = [part for item in level for part in _parts(item)], depth + 1
    return value


class _Refused(ValueError):
    pass


def _refuse(name: str) -> None:
    raise _Refused(f"holds {name}, which is no number of JSON")


def _parts(value: Any) -> list:
    """What lies in a list or an object, its keys too. Raises ValueError for a value that is not taken."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is too large")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"holds a whole number of {value.bit_length()} bits")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds half a character")
    return []
