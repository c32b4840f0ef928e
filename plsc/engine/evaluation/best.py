"""The best checkpoint by a named metric: the same decision on all ranks, and in a resumed run."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.checkpoint.layout import BEST
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.errors import ConfigError
from plsc.evaluation.metric import SMALLER, make_metrics, resolve_number

if TYPE_CHECKING:  # checks before a run starts do not need Paddle
    from plsc.engine.run.start import Run


@dataclass(frozen=True)
class Goal:
    """``best_metric``, parsed: the set, the metric, the name of its value, whether a smaller value is better."""

    name: str
    metric: str
    number: str
    smaller: bool


class Best:
    """Tracks ``best_metric`` = "set.value"; without one no checkpoint is the best.

    A value is one of the run's metrics that has a direction, such as accuracy, eer (smaller is better), tar@1e-3 or
    recall@1. Raises ConfigError for one that no metric of the run computes.
    """

    def __init__(self, run: Run, opened: tuple[str, Manifest] | None):
        self._run, self.metric = run, run.config.best_metric
        self._record: dict[str, Any] = {}
        self._resumed = False
        if not self.metric:
            return
        self._goal = parse_best_metric(run.config, run.user_objects)
        self._resumed = opened is not None and _inside(opened[0], run.config.model_save_dir)
        if self._resumed:
            # the record in the checkpoint, not in best/: a run resumed before its best step decides as before
            self._restore(opened[1].extra)

    def resume(self, step: int) -> bool:
        """Restore the record of a run that resumes at ``step``; True where that step may not have been evaluated.

        Every rank calls it. A step is saved before it is evaluated, so its own record is in best/ only, if anywhere.
        """
        if not self.metric or not self._resumed:
            return False
        path = checkpoint.newest(self.run_dir, self._run.group, self._run.places)
        manifest = checkpoint.read_manifest(path) if path else None
        usable = manifest is not None and manifest.step <= step
        self._restore(self._run.group.broadcast(manifest.extra if usable else {}))
        return self._record.get("step") != step

    def _restore(self, extra: dict[str, Any]) -> None:
        record = extra.get("best", {})
        known = isinstance(record, dict) and record.get("metric") == self.metric
        if known and isinstance(record.get("value"), (int, float)) and type(record.get("step")) is int:
            self._record = record

    @property
    def extra(self) -> dict[str, Any]:
        """The record that is stored in a checkpoint."""
        return {"best": dict(self._record)} if self._record else {}

    @property
    def run_dir(self) -> str:
        return os.path.join(self._run.config.model_save_dir, BEST)

    def improved(self, step: int, results: Mapping[str, Mapping[str, float | None]]) -> bool:
        """Compare the metrics of each set with the best so far; True, on all ranks, if they are better.

        Every rank calls it. A set that could not be evaluated is not better. Raises ConfigError, on every rank, for a
        value that the set does not support.
        """
        if not self.metric or self._goal.number not in results.get(self._goal.name, {}):
            return False
        value, problem = self._run.group.broadcast(self._value(results[self._goal.name]))
        if problem:
            raise ConfigError(problem)
        before = self._record.get("value")
        if before is not None and not (value < before if self._goal.smaller else value > before):
            return False
        self._record = {"metric": self.metric, "value": value, "step": step}
        self._run.log.info(f"best: {self.metric} {value:.6f} at step {step}")
        return True

    def _value(self, numbers: Mapping[str, float | None]) -> tuple[float | None, str | None]:
        """(the value, the reason why there is none)."""
        value = numbers[self._goal.number]
        if value is None:
            known = [name for name, number in numbers.items() if number is not None]
            return None, _unsupported(self.metric, self._goal, known)
        return float(value), None


def parse_best_metric(config: Config, user_objects: UserObjects) -> Goal:
    """Parse ``best_metric``. Raises ConfigError for one that the sets and metrics of the run cannot compute."""
    wanted = config.best_metric
    names = ["test_dataset"] if user_objects.test_dataset is not None else list(config.data.val_targets or [])
    known = {number: metric for metric in make_metrics(config) for number in metric.better}
    name = max((name for name in names if wanted.startswith(f"{name}.")), key=len, default="")
    number = resolve_number(wanted[len(name) + 1 :], known) if name else None
    directed = [number for number, metric in known.items() if metric.better[number]]
    if number not in directed:
        raise ConfigError(
            f"best_metric={wanted!r}: must be a set and a value, as in {'.'.join([*names[:1], *directed[:1]])}; sets: "
            f"{', '.join(names) or 'none'}; values of metrics={config.metrics}: {', '.join(directed) or 'none'}"
        )
    if not config.with_test:
        raise ConfigError(f"best_metric={wanted!r}: needs with_test: true")
    metric = known[number]
    return Goal(name, metric.name, number, metric.better[number] == SMALLER)


def check_best_metric(config: Config, goal: Goal, given: Collection[str]) -> None:
    """Raise ConfigError where ``goal`` is not among ``given``, the values that its set supports."""
    if goal.number not in given:
        raise ConfigError(_unsupported(config.best_metric, goal, list(given)))


def _unsupported(wanted: str, goal: Goal, known: list[str]) -> str:
    base, at, _ = goal.number.partition("@")
    alike = [number for number in known if at and number.startswith(base + at)]
    return f"best_metric={wanted!r}: {goal.name} is too small for it; it supports {', '.join(alike) or 'none like it'}"


def _inside(path: str, run_dir: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(run_dir) + os.sep)
