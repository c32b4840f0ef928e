"""Which rank holds which class: one pure function, used by the classifier, the checkpoint and the tests.

PLSC's rule: every rank holds `ceil(num_classes / world_size)` consecutive classes and the last rank the remainder.
    num_classes 10, world_size 4:  [0, 3) [3, 6) [6, 9) [9, 10)
    num_classes  9, world_size 4:  [0, 3) [3, 6) [6, 9) and nothing for rank 3, so this is an error.
A class range is always `first` (included) to `last` (excluded).
"""

from __future__ import annotations

from plsc.errors import ConfigError


def class_range(num_classes: int, rank: int, world_size: int) -> tuple[int, int]:
    """The classes [first, last) of `rank`.

    Raises ConfigError if a number is out of range or if any rank would have no class.
    """
    width = _width(num_classes, world_size)
    _check_int("rank", rank, 0, world_size - 1)
    return rank * width, min((rank + 1) * width, num_classes)


def num_local(num_classes: int, rank: int, world_size: int) -> int:
    """The number of classes of `rank`, at least 1. Raises like `class_range`."""
    first, last = class_range(num_classes, rank, world_size)
    return last - first


def owner(class_id: int, num_classes: int, world_size: int) -> int:
    """The rank that holds `class_id`. Raises ConfigError for a class outside [0, num_classes)."""
    width = _width(num_classes, world_size)
    _check_int("class_id", class_id, 0, num_classes - 1)
    return class_id // width


def overlaps(num_classes: int, old_world_size: int, first: int, last: int) -> list[tuple[int, int, int]]:
    """How the classes [first, last) are split over `old_world_size` ranks: [(old_rank, first, last), ...].

    The pieces are global class ids, in order and not empty; together they are exactly [first, last).
    """
    width = _width(num_classes, old_world_size)
    _check_int("first", first, 0, num_classes)
    _check_int("last", last, first, num_classes)
    if first == last:
        return []
    ranks = range(first // width, (last - 1) // width + 1)
    return [(rank, max(first, rank * width), min(last, (rank + 1) * width)) for rank in ranks]


def _width(num_classes: int, world_size: int) -> int:
    """Classes per rank (of all but the last one). Raises ConfigError if a rank would have none."""
    _check_int("num_classes", num_classes, 1, None)
    _check_int("world_size", world_size, 1, None)
    if not _fits(num_classes, world_size):
        works = next(n for n in range(min(world_size - 1, num_classes), 0, -1) if _fits(num_classes, n))
        raise ConfigError(
            f"num_classes {num_classes} cannot be split over world_size {world_size}: with "
            f"{-(-num_classes // world_size)} classes per rank the last rank would have none; "
            f"use world_size {works}, the largest below it that works, or more classes"
        )
    return -(-num_classes // world_size)


def _fits(num_classes: int, world_size: int) -> bool:
    return -(-num_classes // world_size) * (world_size - 1) < num_classes


def _check_int(name: str, value: int, low: int, high: int | None) -> None:
    # `__index__` accepts NumPy integers; a bool is a mistake of the caller.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ConfigError(f"{name} must be an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ConfigError(f"{name} must be {allowed}, got {value}")
