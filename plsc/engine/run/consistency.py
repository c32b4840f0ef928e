"""What must be equal on every rank: compared before a run begins; differences are refused on all ranks alike.

Why each difference is refused, logged or ignored: docs/design.md, "Ranks that disagree".
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import PIL

from plsc.backend.cpu import widest_instructions
from plsc.config import OPTIONS, Config
from plsc.config.option import format_value
from plsc.config.urls import masked
from plsc.config.user_objects import UserObjects
from plsc.data import difference
from plsc.data.jpeg import decoder_name
from plsc.engine.run.run_log import RunLog
from plsc.errors import ConfigError, DataError, LaunchError, PlscError
from plsc.parallel.group import Group
from plsc.version import __version__

_NAMED = 5  # differences that a message lists; the others are counted

Facts = Mapping[str, Any]


def require_same_start(config: Config, user_objects: UserObjects, group: Group) -> list[str]:
    """Raise LaunchError or ConfigError, the same on every rank, where versions, settings or user objects differ.

    Returns lines about permitted differences. Call it before anything that depends on Paddle's version.
    """
    mine = {
        "versions": versions(),
        "machine": machine(config),
        "settings": settings(config),
        "user_objects": user_objects.names(),
    }
    everyone = group.all_gather(mine)
    group.agree(lambda: _require_same_start(everyone))
    found = differences([facts["machine"] for facts in everyone])
    return [f"the ranks differ: {line}; results may differ in the last digits from run to run" for line in found]


def _require_same_start(everyone: list[dict[str, Facts]]) -> None:
    _refuse(LaunchError, [facts["versions"] for facts in everyone], "install the same packages on every machine")
    _refuse(ConfigError, [facts["settings"] for facts in everyone], "start every rank with the same settings")
    _refuse(ConfigError, [facts["user_objects"] for facts in everyone], "pass the same objects on every rank")


def versions() -> dict[str, str]:
    """The versions that must be equal for the ranks to communicate and to draw the same random numbers."""
    # NumPy's generators may draw other numbers in another feature release, not in another bug-fix release (NEP 19)
    numpy = ".".join(np.__version__.split(".")[:2])
    return {"the version of PLSC": __version__, "the version of Paddle": paddle.__version__,
            "the version of NumPy": numpy}  # fmt: skip


def machine(config: Config) -> dict[str, str]:
    """What rounding and decoding depend on."""
    return {"the processor": f"{platform.machine()} {widest_instructions(Path('/proc/cpuinfo'))}",
            "the version of Pillow": PIL.__version__,
            "the decoder of JPEG images": decoder_name(config.data.decoder)}  # fmt: skip


def settings(config: Config) -> dict[str, Any]:
    """Every key of the schema except those that may differ between ranks (``per_rank``)."""
    return {key: config.get(key) for key, option in OPTIONS.items() if not option.per_rank}


def require_same_data(data: Facts, device: str, group: Group) -> None:
    """Raise ConfigError or DataError, the same on every rank, where the ranks compute on other devices or would read
    other data. ``data``: records by what they are records of ("training", name of a set)."""
    everyone = group.all_gather({"device": device, "data": data})
    group.agree(lambda: _require_same_data(everyone))


def _require_same_data(everyone: list[dict]) -> None:
    _refuse(ConfigError, [{"the device used": facts["device"]} for facts in everyone], "set device on every rank")
    first = everyone[0]["data"]
    found_there = [{"the number of classes": facts["data"].get("training", {}).get("num_classes"),
                    "what was found": sorted(facts["data"])} for facts in everyone]  # fmt: skip
    _refuse(DataError, found_there, "give every rank the same")
    for rank, facts in enumerate(everyone):
        for name in first:
            found = difference(first[name], facts["data"].get(name, {}))
            if found is not None:
                raise DataError(
                    f"{name}: the data of rank {rank} differ from those of rank 0: {found.text}; give every rank the "
                    "same data, a list in the same order"
                )


def require_same(group: Group, kind: type[PlscError], facts: Facts) -> None:
    """Raise an error of that kind, the same on every rank, where the facts of the ranks differ."""
    everyone = group.all_gather(facts)
    group.agree(lambda: _refuse(kind, everyone, "give every rank the same"))


def log_uncompiled_ranks(compiled: bool, group: Group, log: RunLog) -> None:
    """Log where some ranks use the operations in C++ and others those of Paddle."""
    everyone = group.all_gather(compiled)
    if len(set(everyone)) > 1:
        others = ", ".join(str(rank) for rank, yes in enumerate(everyone) if not yes)
        log.info(
            f"the ranks differ: rank(s) {others} cannot use the operations in C++ and use Paddle's, which are slower "
            "and round differently; the others wait for them"
        )


def differences(everyone: list[Facts]) -> list[str]:
    """A line for each name whose value on some rank is not that of rank 0."""
    lines = []
    for name in dict.fromkeys(name for facts in everyone for name in facts):
        values = [facts.get(name) for facts in everyone]
        others = [rank for rank, value in enumerate(values) if value != values[0]]
        if others:
            first, other = _distinct_values(values[0], values[others[0]])
            more = f" (rank(s) {', '.join(map(str, others[1:]))} differ too)" if others[1:] else ""
            lines.append(f"{name} is {first} on rank 0 and {other} on rank {others[0]}{more}")
    return lines


def _refuse(kind: type[PlscError], everyone: list[Facts], advice: str) -> None:
    lines = differences(everyone)
    if lines:
        more = f"; and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
        raise kind("; ".join(lines[:_NAMED]) + f"{more}: {advice}")


def _distinct_values(first: Any, other: Any) -> tuple[str, str]:
    """Both values as short texts that differ."""
    texts = format_value(first), format_value(other)
    if texts[0] != texts[1]:
        return texts
    whole = [masked(" ".join(repr(value).split())) for value in (first, other)]
    place = next((i for i, (a, b) in enumerate(zip(*whole)) if a != b), min(map(len, whole)))
    return tuple(f"...{text[max(0, place - 20) : place + 40]}" for text in whole)
