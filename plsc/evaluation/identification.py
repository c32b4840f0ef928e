"""Identification: probes are searched for in a gallery, which may also hold distractors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.embeddings import check_embeddings, norms
from plsc.evaluation.roc import allowed_errors

RANKS = (1, 5, 10)
FPIRS = (1e-1, 1e-2, 1e-3)


@dataclass(frozen=True)
class Identification:
    """Rates in [0, 1]; None if the probes do not support the value.

    rank_rate: {k: fraction of mated probes with an entry of their identity among the k most similar}; None without
    mated probes.
    tpir_at_fpir: {f: fraction of mated probes whose most similar entry has their identity and is above the lowest
    threshold that at most a fraction f of the unmated probes reach}; None with fewer than 1/f unmated probes, or
    without mated ones.
    num_mated, num_unmated: number of probes whose identity is, or is not, in the gallery.
    """

    rank_rate: dict[int, float | None]
    tpir_at_fpir: dict[float, float | None]
    num_mated: int
    num_unmated: int


def identify(
    gallery: np.ndarray,
    gallery_id: Sequence[int] | np.ndarray,
    probes: np.ndarray,
    probe_id: Sequence[int] | np.ndarray,
    distractors: np.ndarray | None = None,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    block: int = 1 << 22,
) -> Identification:
    """Search for each probe [M, E] among gallery [N, E] and distractors [D, E] (of other identities) by cosine.

    Identities are integers. Ties count against the probe. Memory beyond the inputs: a few arrays of `block`
    similarities, at least those of one probe, in the dtype of the inputs.

    Raises DataError for wrong shapes or values that are not finite; ConfigError for ranks < 1 or FPIRs outside (0, 1).
    """
    check_options(ranks, fpirs)
    gallery, gallery_ids = check_labelled(gallery, gallery_id, "gallery")
    probes, probe_ids = check_labelled(probes, probe_id, "probes")
    parts = [gallery] if distractors is None else [gallery, check_embeddings(distractors, "distractors")]
    if len({part.shape[1] for part in [probes, *parts]}) != 1 or not len(gallery):
        shapes = [list(part.shape) for part in [probes, *parts]]
        raise DataError(
            f"identification: probes, gallery, distractors are {shapes}; embedding sizes must be equal and the gallery "
            "not empty"
        )
    lengths = [norms(part) for part in parts]
    mate_cosine, mate_rank, best_cosine = _find_mates(parts, lengths, gallery_ids, probes, probe_ids, block)
    mated = np.isin(probe_ids, gallery_ids)
    mate_ranks, first = mate_rank[mated], mate_rank[mated] == 1
    unmated_cosines = np.sort(best_cosine[~mated])[::-1]
    tpir: dict[float, float | None] = {}
    for rate in fpirs:
        allowed = allowed_errors(rate, len(unmated_cosines))
        known = allowed > 0 and len(mate_ranks) > 0
        tpir[rate] = float(np.mean(first & (mate_cosine[mated] > unmated_cosines[allowed]))) if known else None
    return Identification(
        {rank: float(np.mean(mate_ranks <= rank)) if len(mate_ranks) else None for rank in ranks},
        tpir,
        int(mated.sum()),
        len(unmated_cosines),
    )


def check_options(ranks: Sequence[int], fpirs: Sequence[float]) -> None:
    """Raise ConfigError for ranks < 1 and for FPIRs outside (0, 1)."""
    if any(rank < 1 for rank in ranks) or not all(0 < rate < 1 for rate in fpirs):
        raise ConfigError(f"identification: ranks {list(ranks)}, FPIR {list(fpirs)}; allowed: ranks >= 1, 0 < FPIR < 1")


def _find_mates(
    parts: list[np.ndarray],
    lengths: list[np.ndarray],
    gallery_id: np.ndarray,
    probes: np.ndarray,
    probe_id: np.ndarray,
    block: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per probe [M]: highest cosine with its identity (or -inf), rank of that entry from 1, highest cosine."""
    total = sum(len(part) for part in parts)
    mate_cosine, mate_rank, best_cosine = (
        np.full(len(probes), -np.inf),
        np.zeros(len(probes), np.int64),
        np.zeros(len(probes)),
    )
    step = max(1, block // total)
    for start in range(0, len(probes), step):
        rows = slice(start, min(start + step, len(probes)))
        cosine = cosines(parts, lengths, probes[rows])
        is_own = probe_id[rows, None] == gallery_id[None, :]
        mate_cosine[rows] = np.where(is_own, cosine[:, : len(gallery_id)], -np.inf).max(axis=1)
        best_cosine[rows] = cosine.max(axis=1)
        as_near = cosine >= mate_cosine[rows, None]
        as_near[:, : len(gallery_id)] &= ~is_own
        mate_rank[rows] = 1 + as_near.sum(axis=1)
    return mate_cosine, mate_rank, best_cosine


def cosines(parts: list[np.ndarray], lengths: list[np.ndarray], probes: np.ndarray) -> np.ndarray:
    """Cosines of probes [b, E] with all parts [N, E], ..., side by side: [b, N + ...]; 0 for a zero embedding.

    lengths: `norms` of each part. The dtype is that of the inputs.
    """
    length = norms(probes)
    units = (probes / np.where(length > 0, length, 1.0)[:, None]).astype(probes.dtype)
    cosine = np.empty((len(probes), sum(len(part) for part in parts)), np.result_type(probes, *parts))
    start = 0
    for part, lengths_part in zip(parts, lengths):
        view = cosine[:, start : start + len(part)]
        np.matmul(units, part.T, out=view)
        view /= np.where(lengths_part > 0, lengths_part, 1.0)
        start += len(part)
    return cosine


def check_labelled(embeddings: np.ndarray, ids: Sequence[int] | np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked embeddings and their identities as arrays. Raises DataError that begins with `what`."""
    array, identity = check_embeddings(embeddings, what), np.asarray(ids)
    if identity.shape != (len(array),) or (len(identity) and identity.dtype.kind not in "ui"):
        kind = f"{identity.dtype} {list(identity.shape)}"
        raise DataError(f"{what}: identities are {kind} for {len(array)} embeddings, expected one integer for each")
    return array, identity
