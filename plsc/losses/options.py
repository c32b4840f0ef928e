"""Checks of the options of losses."""

from __future__ import annotations


def require(fits: bool, name: str, value: float, allowed: str) -> None:
    """Raise ValueError for an option that does not fit; NaN fits no comparison. ``allowed``: what does, in words."""
    if not fits:
        raise ValueError(f"{name}={value}: must be {allowed}")
