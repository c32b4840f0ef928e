"""The presets of `data.augmentations`, and the check of a list of augmentations."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Union

from plsc.config.interval import Interval
from plsc.registry import AUGMENTATIONS, RegistryEntry
from plsc.signatures import problem_with_options

Steps = Sequence[Union[str, Mapping[str, Mapping[str, Any]]]]

# A preset is the name of a list; a configuration holds the list. flip is first in each: there it draws what it draws
# alone. adaface: Kim et al. 2022, AdaFace, section 4.1 and its training code: each of three with a chance of 0.2, the
# crop on black at its place.
_ADAFACE: list[str | dict] = [
    "flip",
    {"random_crop": {"probability": 0.2, "smallest": 0.2, "in_place": True}},
    {"low_resolution": {"probability": 0.2, "smallest": 0.2}},
    {"colour_jitter": {"probability": 0.2, "brightness": 0.5, "contrast": 0.5, "saturation": 0.5}},
]
PRESETS: dict[str, list[str | dict]] = {
    "none": [],
    "flip": ["flip"],
    "adaface": _ADAFACE,
    "strong": [
        *_ADAFACE,
        {"rand_augment": {"probability": 0.2, "operations": 2, "magnitude": 9}},
        {"grey": {"probability": 0.1}},
        {"blur": {"probability": 0.1, "smallest": 0.3, "largest": 2.0}},
        {"jpeg_quality": {"probability": 0.2, "lowest": 20, "highest": 90}},
        {"random_erasing": {"probability": 0.2, "smallest": 0.02, "largest": 0.2}},
    ],
}


def problem(steps: Steps) -> str:
    """What is wrong with names, or mappings {name: options}; "" where nothing is."""
    for step in steps:
        ((name, options),) = [(step, {})] if isinstance(step, str) else step.items()
        if name not in AUGMENTATIONS:
            return f"{name!r:.80} {_unknown(name, steps)}"
        reason = problem_with_options(AUGMENTATIONS.find(name), options, skip=2)  # after image and generator
        reason = reason or _out_of_range(AUGMENTATIONS.entry(name), options)
        if reason:
            return f"augmentation {name!r}: {reason}"
    return ""


def _unknown(name: str, steps: Steps) -> str:
    presets = ", ".join(PRESETS)
    if name in PRESETS:
        return f"is a preset and stands alone, as in data.augmentations: {name}; presets: {presets}"
    if list(steps) != [name]:
        return AUGMENTATIONS.unknown_message(name)
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f"; did you mean the preset {near[0]}?" if near else ""
    return f"{AUGMENTATIONS.unknown_message(name)}; or a preset: {presets}{hint}"


def _out_of_range(entry: RegistryEntry, options: Mapping[str, Any]) -> str:
    """The first option that is outside of its range; the range may depend on other options, also on their defaults."""
    parameters = inspect.signature(entry.value).parameters.values()
    values = {one.name: one.default for one in parameters if one.default is not one.empty}
    values.update(options)
    for name, text in entry.within.items():
        interval = text.format_map(values)
        if values[name] is not None and values[name] not in Interval(interval):
            used = [f"{other}={values[other]}" for other in values if f"{{{other}}}" in text]
            return f"{name}={values[name]} must be in {interval}" + (f", with {', '.join(used)}" if used else "")
    return ""
