"""The results of a step: numbers for the log and the loop, in one tensor, so that one copy brings them all.

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

# not part of a checkpoint; the second: 1 if the last step was skipped, where the next one depends on it, see
# plsc.rows.skipped.fed
VARIABLE, SKIPPED = "step.results", "step.skipped"


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
    """{name: number} of a step. The first use waits for the step to end, and then calls ``then(self)`` if it is set."""

    def __init__(self, names: tuple[str, ...], read: Callable[[], np.ndarray]):
        self._names, self._read = names, read
        self._values: dict[str, float] | None = None
        self.then: Callable[[StepResults], None] | None = None

    def wait(self) -> dict[str, float]:
        """Wait for the step to end; its results."""
        if self._values is None:
            self._values = dict(zip(self._names, self._read().tolist()))
            if self.then is not None:
                self.then(self)
        return self._values

    def __getitem__(self, name: str) -> float:
        return self.wait()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
