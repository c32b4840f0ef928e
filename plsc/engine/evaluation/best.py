"""The best checkpoint by a named metric: one decision for all ranks, the same again in a resumed run."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.checkpoint.layout import BEST
from plsc.config import Config
from plsc.config.parts import Parts
from plsc.errors import ConfigError
from plsc.evaluation.roc import allowed_errors
from plsc.evaluation.verification import FARS, Verification

if TYPE_CHECKING:  # what is looked at before a run starts needs no Paddle
    from plsc.engine.run.start import Run

_METRIC = re.compile(r"(?P<name>.+)\.(?P<figure>accuracy|auc|eer|tar@(?P<far>[0-9.e-]+))")


class Best:
    """Follows ``best_metric`` = "set.figure"; of a run without one nothing is ever better.

    Figures: accuracy, auc, eer (the smaller is better) and tar@F, the true accept rate at the false accept rate F.
    Raises ConfigError for a metric that no verification of the run gives.
    """

    def __init__(self, run: Run, opened: tuple[str, Manifest] | None):
        self._run, self.metric = run, run.config.best_metric
        self._record: dict[str, Any] = {}
        self._resumed = False
        if not self.metric:
            return
        self._match = parse_metric(run.config, run.parts)
        self._resumed = opened is not None and _inside(opened[0], run.config.model_save_dir)
        if self._resumed:
            # what a checkpoint of this run says, rather than what lies in best/: a run that is resumed before its best
            # step decides again as it did
            self._take(opened[1].extra)

    def going_on(self, step: int) -> bool:
        """To be called by every rank of a run that begins at ``step``; True where that step may not have been judged.

        A step is saved first and judged then, so that its own record is in best/ only, if anywhere.
        """
        if not self.metric or not self._resumed:
            return False
        path = checkpoint.latest(self.run_dir)
        manifest = checkpoint.read_manifest(path) if path else None
        usable = manifest is not None and manifest.step <= step
        self._take(self._run.group.broadcast(manifest.extra if usable else {}))
        return self._record.get("step") != step

    def _take(self, extra: dict[str, Any]) -> None:
        record = extra.get("best", {})
        known = isinstance(record, dict) and record.get("metric") == self.metric
        if known and isinstance(record.get("value"), (int, float)) and type(record.get("step")) is int:
            self._record = record

    @property
    def extra(self) -> dict[str, Any]:
        """What a checkpoint keeps of this."""
        return {"best": dict(self._record)} if self._record else {}

    @property
    def run_dir(self) -> str:
        return os.path.join(self._run.config.model_save_dir, BEST)

    def improved(self, step: int, results: dict[str, Verification]) -> bool:
        """Look at a verification, by every rank; True on all of them if it is better than all before.

        A set that could not be verified is no better. Raises ConfigError, on every rank, for a figure that the set
        does not support.
        """
        if not self.metric or self._match["name"] not in results:
            return False
        value, problem = self._run.group.broadcast(self._value(results))
        if problem:
            raise ConfigError(problem)
        before = self._record.get("value")
        smaller = self._match["figure"] == "eer"
        if before is not None and not (value < before if smaller else value > before):
            return False
        self._record = {"metric": self.metric, "value": value, "step": step}
        self._run.journal.say(f"best: {self.metric} {value:.6f} at step {step}")
        return True

    def _value(self, results: dict[str, Verification]) -> tuple[float | None, str | None]:
        """(the figure, why there is none)."""
        name, figure, far = self._match["name"], self._match["figure"], self._match["far"]
        if far is None:
            return float(getattr(results[name], figure)), None
        rates = results[name].tar_at_far
        value = rates.get(float(far))
        if value is None:
            return None, _unsupported(self.metric, name, [rate for rate, tar in rates.items() if tar is not None])
        return float(value), None


def parse_metric(config: Config, parts: Parts) -> re.Match:
    """``best_metric`` in its groups: name, figure, far. Raises ConfigError for one that no verification can give."""
    metric = config.best_metric
    match = _METRIC.fullmatch(metric)
    names = ["test_dataset"] if parts.test_dataset is not None else list(config.data.val_targets)
    good = match is not None and match["name"] in names
    try:
        good = good and (match["far"] is None or float(match["far"]) > 0)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            f"best_metric={metric!r}: must be a set and a figure, as {names[0]}.accuracy; sets: {', '.join(names)}; "
            "figures: accuracy, auc, eer, tar@1e-3"
        )
    if not config.with_test:
        raise ConfigError(f"best_metric={metric!r}: needs with_test: true")
    return match


def check_metric(config: Config, parts: Parts, name: str, num_different: int) -> None:
    """Raise ConfigError where the set ``name`` has too few different pairs for ``best_metric``."""
    match = parse_metric(config, parts)
    if match["name"] != name or match["far"] is None:
        return
    supported = [far for far in FARS if allowed_errors(far, num_different)]
    if float(match["far"]) not in supported:
        raise ConfigError(_unsupported(config.best_metric, name, supported))


def _unsupported(metric: str, name: str, rates: list[float]) -> str:
    known = ", ".join(f"tar@{rate:g}" for rate in rates) or "none"
    return f"best_metric={metric!r}: the pairs of {name} support {known}"


def _inside(path: str, run_dir: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(run_dir) + os.sep)
