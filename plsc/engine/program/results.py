"""The results of a step: numbers for the log and the loop, in one tensor, so that a step waits for one copy only.

They stay in a variable of the program. So a step is not waited for where it is started, but where they are first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle

from plsc.backend import static
from plsc.backend.copies import Behind, InTime

VARIABLE = "step.results"  # not part of a checkpoint


def one_tensor(results: Mapping[str, Any]):
    """float64 [K], in the order of ``results``, each of which is one number: exact for float32, and for counts below
    2^53."""
    return paddle.concat([paddle.reshape(paddle.cast(value, "float64"), [1]) for value in results.values()])


def keep(results: Mapping[str, Any], step) -> None:
    """Append that the number of the step and its results are kept in VARIABLE, float64 [1 + K]."""
    state = static.create_state(VARIABLE, [1 + len(results)], "float64")
    paddle.assign(one_tensor({"step": step, **results}), output=state)


@dataclass(frozen=True)
class Reading:
    """``copies``: how a step gets its inputs and gives its results. ``ahead``: the number of steps, 0 or 1, whose
    results are not waited for before the next one is started."""

    copies: InTime | Behind = field(default_factory=InTime)
    ahead: int = 0


class StepResults(Mapping):
    """{name: number} of a step. The first use waits for the step to end."""

    def __init__(self, names: tuple[str, ...], read: Callable[[], np.ndarray]):
        self._names, self._read = names, read
        self._values: dict[str, float] | None = None

    def __getitem__(self, name: str) -> float:
        if self._values is None:
            self._values = dict(zip(self._names, self._read().tolist()))
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
