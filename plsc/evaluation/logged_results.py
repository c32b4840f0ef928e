"""Results of evaluation sets, parsed from scalars.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.evaluation.verification import Verification

ABOUT = ("step", "test")
ROC = ("tar_at_far", "roc")
PLAIN = ("accuracy", "accuracy_std", "threshold", "auc", "eer", "xnorm", "num_same", "num_different")


@dataclass(frozen=True)
class LoggedResult:
    """The last line of a set: its step, its verification if it was computed, and the numbers of other metrics."""

    step: int
    verification: Verification | None
    numbers: dict[str, float | None]

    def plain(self) -> dict[str, Any]:
        """The data as in scalars.jsonl, but without the ROC curve."""
        found = {} if self.verification is None else {name: getattr(self.verification, name) for name in PLAIN}
        if self.verification is not None:
            found["tar_at_far"] = {f"{far:g}": tar for far, tar in self.verification.tar_at_far.items()}
        return {"step": self.step, **found, **self.numbers}


def parse_logged(line: Mapping[str, Any]) -> LoggedResult:
    """Parse a line of an evaluation set. Raises KeyError, TypeError or ValueError for an invalid line."""
    verified = "roc" in line
    of_verification = (*PLAIN, *ROC) if verified else ()
    numbers = {
        name: value
        for name, value in line.items()
        if name not in (*ABOUT, *of_verification) and (value is None or isinstance(value, (int, float)))
    }
    return LoggedResult(int(line["step"]), _verification(line) if verified else None, numbers)


def _verification(line: Mapping[str, Any]) -> Verification:
    roc = line["roc"]
    return Verification(
        tar_at_far={float(far): tar for far, tar in line["tar_at_far"].items()},
        fpr=np.array(roc["fpr"]),
        tpr=np.array(roc["tpr"]),
        **{name: line[name] for name in PLAIN},
    )
