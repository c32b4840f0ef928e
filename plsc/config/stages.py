"""Values of ``model.freeze`` and ``lr_factors``, which name stages of the backbone.

The stages of a model are known when it is built (plsc.models.stages)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from plsc.config.format_value import format_value

ALL = "all"  # of ``model.freeze``: the whole backbone
HEAD = "head"  # of ``lr_factors``: the class centres
MAX_FACTOR = 1e6


def freeze_problem(names: list[str]) -> str | None:
    """The error in a value of ``model.freeze``, or None."""
    if HEAD in names:
        return f"{HEAD}, the class centres, is always trained; name stages of the backbone"
    if ALL in names and len(names) > 1:
        return f"{ALL} is the whole backbone; remove the other names, or {ALL}"
    return "a stage is named twice" if len(set(names)) < len(names) else None


def lr_factors_problem(factors: Mapping[str, Any]) -> str | None:
    """The error in a value of ``lr_factors``, or None."""
    for name, factor in factors.items():
        if name == ALL:
            return f"{ALL} is not a stage; change lr instead, or name stages"
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor <= MAX_FACTOR:
            return f"the factor of {name} is {format_value(factor)}; it must be a number in (0, {MAX_FACTOR:g}]"
        if factor == 0 and name != HEAD:
            return f"the factor of {name} is 0; to keep a stage as it is, name it in model.freeze, which costs less"
        if factor == 0:
            return f"the factor of {HEAD} is 0, but the class centres are always trained; use a small factor"
    return None


def frozen_with_factor(freeze: Collection[str], factors: Mapping[str, Any]) -> list[str]:
    """The stages that are frozen and have a factor."""
    return [name for name in factors if name in freeze or (ALL in freeze and name != HEAD)]
