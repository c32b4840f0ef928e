"""The values that ranks exchange, collected by rank 0: each rank sends its own once and receives all of them once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, int]  # the name of a channel, and the number of the exchange on it


@dataclass
class _Gather:
    first_only: bool
    bodies: dict[int, bytes] = field(default_factory=dict)


class Gathers:
    """Those that are not complete yet."""

    def __init__(self, world_size: int):
        self._world_size = world_size
        self._open: dict[Key, _Gather] = {}

    def add(self, key: Key, rank: int, body: bytes, first_only: bool) -> tuple[dict[str, Any], bytes] | None:
        """Record the value of a rank. When it was the last one: (header, body) of the answer to all ranks, else None.

        first_only: only the value of rank 0 is wanted. Equal values are sent once.
        """
        gather = self._open.setdefault(key, _Gather(first_only))
        gather.bodies[rank] = body
        if len(gather.bodies) < self._world_size:
            return None
        del self._open[key]
        bodies = [gather.bodies[each] for each in range(1 if gather.first_only else self._world_size)]
        places = {text: place for place, text in enumerate(dict.fromkeys(bodies))}
        header = {"gathered": key[0], "call": key[1], "sizes": [len(text) for text in places]}
        return {**header, "which": [places[text] for text in bodies]}, b"".join(places)

    def missing(self, key: Key) -> list[int]:
        """The ranks whose value has not come."""
        gather = self._open.get(key)
        return [rank for rank in range(self._world_size) if gather is None or rank not in gather.bodies]

    def waiting(self) -> list[Key]:
        """Those that have begun and are not complete."""
        return list(self._open)


def texts(header: dict[str, Any], body: bytes) -> list[bytes]:
    """The value of each rank from an answer of ``Gathers.add``."""
    distinct, end = [], 0
    for size in header["sizes"]:
        distinct.append(body[end : end + size])
        end += size
    return [distinct[place] for place in header["which"]]
