"""The check of a list of augmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plsc.registry import AUGMENTATIONS
from plsc.signatures import problem_with_options


def problem(steps: Sequence[str | Mapping[str, Mapping[str, Any]]]) -> str:
    """What is wrong with names, or mappings {name: options}; "" where nothing is."""
    for step in steps:
        ((name, options),) = [(step, {})] if isinstance(step, str) else step.items()
        if name not in AUGMENTATIONS:
            return f"{name!r:.80} {AUGMENTATIONS.unknown_message(name)}"
        reason = problem_with_options(AUGMENTATIONS.find(name), options, skip=2)  # after image and generator
        if reason:
            return f"augmentation {name!r}: {reason}"
    return ""
