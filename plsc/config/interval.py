"""A range of numbers."""

from __future__ import annotations

import dataclasses
import re

_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A range of numbers, written as in mathematics: "(0, 1]" leaves 0 out and takes 1 in; "inf" is an open end."""

    text: str

    def __contains__(self, number: float) -> bool:
        found = _INTERVAL.fullmatch(self.text)
        assert found is not None, self.text
        left, low, high, right = found.groups()
        above = number >= float(low) if left == "[" else number > float(low)
        below = number <= float(high) if right == "]" else number < float(high)
        return above and below
