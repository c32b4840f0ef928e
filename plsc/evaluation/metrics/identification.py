"""Identification as a metric: who is it, of those that are known?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plsc.evaluation.identification import FPIRS, RANKS, check_options, identify
from plsc.evaluation.metric import DISTRACTOR, LARGER, Embedded, Metric, register_metric
from plsc.evaluation.roc import allowed_errors


@register_metric("identification", source="Grother and Ngan, Face Recognition Vendor Test, NIST IR 8009, 2014")
class IdentificationMetric(Metric):
    """Rank-k and TPIR at FPIR: the first image of each identity is known, the others are looked up.

    An identity with one image is a stranger: nobody knows it, and its image is looked up. Distractors are known.
    """

    def __init__(self, ranks: Sequence[int] = RANKS, fpirs: Sequence[float] = FPIRS):
        check_options(ranks, fpirs)
        self.ranks, self.fpirs = tuple(ranks), tuple(fpirs)
        names = (*(f"rank@{rank}" for rank in self.ranks), *(f"tpir@{rate:g}" for rate in self.fpirs))
        self.better = {**dict.fromkeys(names, LARGER), "num_mated": None, "num_unmated": None}

    def gives(self, data: Embedded) -> tuple[str, ...]:
        known, mated, strangers = split_roles(data.identities)
        if not len(mated):
            return ()
        few = [rate for rate in self.fpirs if not allowed_errors(rate, len(strangers))]
        return tuple(name for name in self.better if name not in [f"tpir@{rate:g}" for rate in few])

    def compute(self, data: Embedded) -> dict[str, float | None]:
        known, mated, strangers = split_roles(data.identities)
        if not len(mated):
            return {**dict.fromkeys(self.better), "num_mated": 0, "num_unmated": len(strangers)}
        looked_up = np.concatenate([mated, strangers])
        found = identify(
            data.embeddings[known],
            data.identities[known],
            data.embeddings[looked_up],
            data.identities[looked_up],
            data.embeddings[data.identities == DISTRACTOR],
            self.ranks,
            self.fpirs,
        )
        return {
            **{f"rank@{rank}": rate for rank, rate in found.rank_rate.items()},
            **{f"tpir@{rate:g}": share for rate, share in found.tpir_at_fpir.items()},
            "num_mated": found.num_mated,
            "num_unmated": found.num_unmated,
        }


def split_roles(identities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images that are known, that are looked up and known, and of strangers, each int64 and rising."""
    names, first, which, counts = np.unique(identities, return_index=True, return_inverse=True, return_counts=True)
    several = (counts > 1) & (names != DISTRACTOR)
    is_first = np.zeros(len(identities), bool)
    is_first[first] = True
    known = is_first & several[which]
    stranger = ((counts == 1) & (names != DISTRACTOR))[which]
    mated = several[which] & ~is_first
    return np.flatnonzero(known), np.flatnonzero(mated), np.flatnonzero(stranger)
