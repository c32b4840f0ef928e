"""The best checkpoint by a named metric: one decision for all ranks, the same again in a resumed run."""

from __future__ import annotations

import os
import re
from typing import Any

from plsc.checkpoint import Manifest
from plsc.checkpoint.layout import BEST
from plsc.engine.start import Run
from plsc.errors import ConfigError
from plsc.evaluation.verification import Verification

_METRIC = re.compile(r"(?P<name>.+)\.(?P<figure>accuracy|auc|eer|tar@(?P<far>[0-9.e-]+))")


class Best:
    """Follows ``best_metric`` = "set.figure"; of a run without one nothing is ever better.

    Figures: accuracy, auc, eer (the smaller is better) and tar@F, the true accept rate at the false accept rate F.
    Raises ConfigError for a metric that no verification of the run gives.
    """

    def __init__(self, run: Run, opened: tuple[str, Manifest] | None):
        self._run, self.metric = run, run.config.best_metric
        self._record: dict[str, Any] = {}
        if not self.metric:
            return
        self._match = _parse(run)
        # what a checkpoint of this run says, rather than what lies in best/: a run that is resumed before its best
        # step decides again as it did
        if opened is not None and _inside(opened[0], run.config.model_save_dir):
            record = opened[1].extra.get("best", {})
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
        """Look at a verification, by every rank; True on all of them if it is better than all before."""
        if not self.metric or not results:
            return False
        value = self._run.group.broadcast(self._value(results))
        before = self._record.get("value")
        smaller = self._match["figure"] == "eer"
        if before is not None and not (value < before if smaller else value > before):
            return False
        self._record = {"metric": self.metric, "value": value, "step": step}
        self._run.journal.say(f"best: {self.metric} {value:.6f} at step {step}")
        return True

    def _value(self, results: dict[str, Verification]) -> float:
        name, figure, far = self._match["name"], self._match["figure"], self._match["far"]
        if name not in results:
            raise ConfigError(f"best_metric={self.metric!r}: the sets verified are {', '.join(results)}")
        if far is None:
            return float(getattr(results[name], figure))
        rates = results[name].tar_at_far
        value = rates.get(float(far))
        if value is None:
            known = ", ".join(f"tar@{rate:g}" for rate, tar in rates.items() if tar is not None) or "none"
            raise ConfigError(f"best_metric={self.metric!r}: the pairs of {name} support {known}")
        return float(value)


def _parse(run: Run) -> re.Match:
    metric, config = run.config.best_metric, run.config
    match = _METRIC.fullmatch(metric)
    names = ["test_dataset"] if run.parts.test_dataset is not None else list(config.data.val_targets)
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


def _inside(path: str, run_dir: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(run_dir) + os.sep)
