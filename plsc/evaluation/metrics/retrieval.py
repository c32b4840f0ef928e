"""The retrieval metric: every image of a set is a query among all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plsc.evaluation.metric import DISTRACTOR, LARGER, Embedded, Metric, register_metric
from plsc.evaluation.retrieval import KS, check_ks, retrieve


@register_metric("retrieval", source="Musgrave et al., A Metric Learning Reality Check, ECCV 2020")
class RetrievalMetric(Metric):
    """recall@k, precision@1, R-precision and mAP@R.

    ks: the values of k of recall@k.
    """

    def __init__(self, ks: Sequence[int] = KS):
        self.ks = check_ks(ks)
        names = (*(f"recall@{k}" for k in self.ks), "precision@1", "r_precision", "map@r")
        self.better = {**dict.fromkeys(names, LARGER), "num_queries": None, "num_gallery": None}

    def gives(self, data: Embedded) -> tuple[str, ...]:
        numbers = np.unique(data.identities[data.identities != DISTRACTOR], return_counts=True)[1]
        return tuple(self.better) if (numbers > 1).any() else ()

    def compute(self, data: Embedded) -> dict[str, float | None]:
        found = retrieve(data.embeddings, data.identities, ks=self.ks)
        return {
            **{f"recall@{k}": rate for k, rate in found.recall.items()},
            "precision@1": found.precision_at_1,
            "r_precision": found.r_precision,
            "map@r": found.map_at_r,
            "num_queries": found.num_queries,
            "num_gallery": found.num_gallery,
        }
