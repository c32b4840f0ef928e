"""Formats a value for a message: on one line, short, and fast for any value."""

from __future__ import annotations

from typing import Any

from plsc.config.urls import masked

MAX_LENGTH = 80  # characters
_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}"), set: ("{", "}")}
_MOST_BITS = 512  # Python refuses to write numbers of thousands of digits


def format_value(value: Any) -> str:
    """A value on one line of at most 80 characters, without the secrets of an address."""
    text = masked(" ".join(_brief(value, 4).split()))
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair cannot be written to a log
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


def _brief(value: Any, depth: int) -> str:
    """``repr`` of the beginning of a value: a few lines of YAML can stand for a list of billions."""
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)):
        return repr(value[: 10 * MAX_LENGTH])  # an address is masked before it is cut
    if type(value) not in _BRACKETS or not value:
        return repr(value)
    if depth == 0:
        return "..."
    parts, length = [], 0
    for item in value.items() if isinstance(value, dict) else zip(value):
        parts.append(": ".join(_brief(part, depth - 1) for part in item))
        length += len(parts[-1])
        if length > MAX_LENGTH:
            break
    left, right = _BRACKETS[type(value)]
    return left + ", ".join(parts) + ("," if isinstance(value, tuple) and len(value) == 1 else "") + right
