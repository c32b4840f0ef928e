"""The identification metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plsc.evaluation.identification import FPIRS, RANKS, check_options, identify
from plsc.evaluation.metric import DISTRACTOR, LARGER, Embedded, Metric, register_metric
from plsc.evaluation.roc import allowed_errors


@register_metric("identification", source="Grother and Ngan, Face Recognition Vendor Test, NIST IR 8009, 2014")
class IdentificationMetric(Metric):
    """Rank-k rate and TPIR at FPIR. The first image of each identity is in the gallery, the others are mated probes.

    The image of an identity with one image is an unmated probe. Distractors are in the gallery.
    """

    def __init__(self, ranks: Sequence[int] = RANKS, fpirs: Sequence[float] = FPIRS):
        check_options(ranks, fpirs)
        self.ranks, self.fpirs = tuple(ranks), tuple(fpirs)
        names = (*(f"rank@{rank}" for rank in self.ranks), *(f"tpir@{rate:g}" for rate in self.fpirs))
        self.better = {**dict.fromkeys(names, LARGER), "num_mated": None, "num_unmated": None}

    def gives(self, data: Embedded) -> tuple[str, ...]:
        gallery, mated, unmated = split_roles(data.identities)
        if not len(mated):
            return ()
        few = [rate for rate in self.fpirs if not allowed_errors(rate, len(unmated))]
        return tuple(name for name in self.better if name not in [f"tpir@{rate:g}" for rate in few])

    def compute(self, data: Embedded) -> dict[str, float | None]:
        gallery, mated, unmated = split_roles(data.identities)
        if not len(mated):
            return {**dict.fromkeys(self.better), "num_mated": 0, "num_unmated": len(unmated)}
        probes = np.concatenate([mated, unmated])
        found = identify(
            data.embeddings[gallery],
            data.identities[gallery],
            data.embeddings[probes],
            data.identities[probes],
            data.embeddings[data.identities == DISTRACTOR],
            self.ranks,
            self.fpirs,
        )
        return {
            **{f"rank@{rank}": rate for rank, rate in found.rank_rate.items()},
            **{f"tpir@{fpir:g}": rate for fpir, rate in found.tpir_at_fpir.items()},
            "num_mated": found.num_mated,
            "num_unmated": found.num_unmated,
        }


def split_roles(identities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the gallery images, the mated probes and the unmated probes, each int64 and ascending."""
    ids, first, which, counts = np.unique(identities, return_index=True, return_inverse=True, return_counts=True)
    is_mated = (counts > 1) & (ids != DISTRACTOR)
    is_first = np.zeros(len(identities), bool)
    is_first[first] = True
    gallery = is_first & is_mated[which]
    is_unmated = ((counts == 1) & (ids != DISTRACTOR))[which]
    mated = is_mated[which] & ~is_first
    return np.flatnonzero(gallery), np.flatnonzero(mated), np.flatnonzero(is_unmated)
