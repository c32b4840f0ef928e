"""The verification metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plsc.evaluation.metric import LARGER, PAIRS, SMALLER, Embedded, Metric, register_metric
from plsc.evaluation.roc import allowed_errors
from plsc.evaluation.verification import EXACT, FARS, Verification, verify


@register_metric("verification", source="Huang et al., Labeled Faces in the Wild, UMass TR 07-49, 2007")
class VerificationMetric(Metric):
    """10-fold accuracy, AUC, EER and TAR at FAR of pairs.

    ``compute`` returns a ``Verification``.
    """

    needs = PAIRS
    on_every_rank = True  # every rank returns the full result
    better = {
        "accuracy": LARGER,
        "accuracy_std": None,
        "threshold": None,
        "auc": LARGER,
        "eer": SMALLER,
        "xnorm": None,
        **{f"tar@{far:g}": LARGER for far in FARS},
        "num_same": None,
        "num_different": None,
    }

    def __init__(self, protocol: str = EXACT):
        self.protocol = protocol

    def gives(self, data: Embedded) -> tuple[str, ...]:
        few = [f"tar@{far:g}" for far in FARS if not allowed_errors(far, int((~data.issame).sum()))]
        return tuple(name for name in self.better if name not in few)

    def compute(self, data: Embedded) -> Verification:
        return verify(data.embeddings, data.issame, xnorm=data.xnorm, protocol=self.protocol)

    def numbers(self, result: Verification) -> dict[str, float | None]:
        plain = {name: getattr(result, name) for name in self.better if "@" not in name}
        return {**plain, **{f"tar@{far:g}": tar for far, tar in result.tar_at_far.items()}}

    def describe(self, values: Mapping[str, float | None]) -> str:
        tar = ", ".join(
            f"TAR@FAR={name.partition('@')[2]}: {value:.5f}"
            for name, value in values.items()
            if name.startswith("tar@") and value is not None
        )
        return (
            f"Accuracy-Flip: {values['accuracy']:.5f}+-{values['accuracy_std']:.5f}, XNorm: {values['xnorm']:.5f}, "
            f"AUC: {values['auc']:.5f}, EER: {values['eer']:.5f}" + (f", {tar}" if tar else "")
        )

    def record(self, result: Verification) -> dict[str, Any]:
        return {
            "accuracy": result.accuracy,
            "accuracy_std": result.accuracy_std,
            "threshold": result.threshold,
            "auc": result.auc,
            "eer": result.eer,
            "xnorm": result.xnorm,
            "tar_at_far": {f"{far:g}": tar for far, tar in result.tar_at_far.items()},
            "roc": {"fpr": [round(float(x), 6) for x in result.fpr], "tpr": [round(float(x), 6) for x in result.tpr]},
            "num_same": result.num_same,
            "num_different": result.num_different,
        }
