"""Results that are read one step late, so that a GPU has its next step before it is done with this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from plsc.backend.copies import Behind, InTime, copies_of_gpu
from plsc.config.schema import ALWAYS, NEVER
from plsc.engine.program.results import Reading
from plsc.engine.run.start import Run


@dataclass(frozen=True)
class BegunStep:
    """A step that was started: its number from 0, the labels of this rank, the learning rate, and its results, whose
    first use waits for its end."""

    step: int
    labels: np.ndarray
    lr: float
    results: Mapping[str, float]


def make_reading(run: Run) -> Reading:
    """How this run's steps are read, by `late_results`; as far ahead on every rank."""
    late = run.config.late_results
    copies = copies_of_gpu(run.env.device_id) if run.env.on_gpu and late != NEVER else InTime()
    behind = all(run.group.all_gather(isinstance(copies, Behind)))
    ahead = int(late == ALWAYS or behind)
    return Reading(copies if ahead else InTime(), ahead)
