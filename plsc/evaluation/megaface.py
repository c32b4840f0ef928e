"""Identification in the protocol of MegaFace: each probe is searched for one mate among all distractors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.embeddings import check_embeddings, norms
from plsc.evaluation.identification import RANKS, check_labelled, cosines

BLOCK = 1 << 22  # similarities per block


def megaface(
    probes: np.ndarray,
    probe_id: Sequence[int],
    distractors: np.ndarray,
    mates: np.ndarray | None = None,
    mate_id: Sequence[int] | np.ndarray | None = None,
    ranks: Sequence[int] = RANKS,
    block: int = BLOCK,
) -> tuple[dict[int, float | None], int]:
    """Return ({k: fraction of trials with the mate among the k most similar}, number of trials), by cosine.

    A trial is a probe [M, E] and one mate [N, E] of its identity; its gallery is that mate and all distractors [D, E].
    Without mates, the mates of a probe are the other probes of its identity, as in MegaFace with FaceScrub. Rates are
    over trials, so an identity with many trials counts more; None without trials. In `identify`, by contrast, the
    gallery holds all identities, and one of several entries of an identity is enough. Ties count against the probe.

    Source: Kemelmacher-Shlizerman et al., "The MegaFace Benchmark", CVPR 2016, section 4 (rank-k with N distractors).
    Raises DataError for wrong shapes, values that are not finite or no distractors; ConfigError for ranks < 1.
    """
    if any(rank < 1 for rank in ranks) or not ranks:
        raise ConfigError(f"identification: ranks {list(ranks)}; give at least one, each at least 1")
    probes, probe_ids = check_labelled(probes, probe_id, "probes")
    distractors = check_embeddings(distractors, "distractors")
    others = mates is None
    if mates is None:
        mates, mate_ids = probes, probe_ids
    else:
        mates, mate_ids = check_labelled(mates, () if mate_id is None else mate_id, "mates")
    if len({part.shape[1] for part in (probes, mates, distractors)}) != 1 or not len(distractors):
        shapes = [list(part.shape) for part in (probes, mates, distractors)]
        raise DataError(
            f"identification: probes, mates, distractors are {shapes}; embedding sizes must be equal and distractors "
            "not empty"
        )
    lengths, mate_lengths = [norms(distractors)], [norms(mates)]
    hits, trials = np.zeros(len(ranks), np.int64), 0
    step = max(1, block // (len(distractors) + len(mates)))
    for start in range(0, len(probes), step):
        rows = np.arange(start, min(start + step, len(probes)))
        is_mate = probe_ids[rows, None] == mate_ids[None, :]
        if others:
            is_mate[np.arange(len(rows)), rows] = False
        similarity = cosines([mates], mate_lengths, probes[rows])
        bars = _kth_distractor(cosines([distractors], lengths, probes[rows]), ranks)
        hits += [int((is_mate & (similarity > bar[:, None])).sum()) for bar in bars]
        trials += int(is_mate.sum())
    return {rank: float(hit / trials) if trials else None for rank, hit in zip(ranks, hits)}, trials


def _kth_distractor(cosine: np.ndarray, ranks: Sequence[int]) -> list[np.ndarray]:
    """For each rank k, the k-th largest value of every row, which a mate must exceed; -inf with fewer distractors."""
    count = cosine.shape[1]
    places = sorted({count - rank for rank in ranks if rank <= count})
    if places:
        cosine.partition(places, axis=1)
    nothing = np.full(len(cosine), -np.inf)
    return [cosine[:, count - rank] if rank <= count else nothing for rank in ranks]
