"""Retrieval metrics: recall@k, precision@1, R-precision and mAP@R.

Definitions: Musgrave, Belongie and Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv:2003.08505), section 3.2;
recall@k as in Oh Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.embeddings import ROWS, normalize
from plsc.evaluation.identification import check_labelled
from plsc.evaluation.metric import DISTRACTOR

KS = (1, 5, 10)
BLOCK = 1 << 24  # similarities per block: 128 MB
GRID = 2.0**26


@dataclass(frozen=True)
class Retrieval:
    """Means over the queries that have a reference, each in [0, 1]; None where no query has one.

    A reference is another image of the query's identity in the gallery; R is the number of references of a query.
    recall: {k: fraction of queries with a reference among the k nearest}. precision_at_1: the fraction whose nearest
    image is a reference, equal to recall[1]. r_precision: the fraction of references among the R nearest. map_at_r: the
    sum over i = 1 .. R of P(i), divided by R; P(i) is the fraction of references among the i nearest if the i-th is
    one, else 0. num_queries: queries with a reference. num_lone: queries without one, which are ignored. num_gallery:
    images in the gallery.
    """

    recall: dict[int, float | None]
    precision_at_1: float | None
    r_precision: float | None
    map_at_r: float | None
    num_queries: int
    num_lone: int
    num_gallery: int


@dataclass(frozen=True)
class _SearchSpace:
    """Unit vectors on the grid, float64. identity: of the gallery's rows, ascending. query_rows, query_ids: the rows of
    ``queries`` to search for, and their identities. among_gallery: queries are gallery rows, and skip themselves."""

    gallery: np.ndarray
    identity: np.ndarray
    queries: np.ndarray
    query_rows: np.ndarray
    query_ids: np.ndarray
    among_gallery: bool


@dataclass(frozen=True)
class _QueryResults:
    """Per query [M]: number of references, rank of the nearest from 1, R-precision, average precision at R."""

    references: np.ndarray
    nearest: np.ndarray
    precision: np.ndarray
    average: np.ndarray


def retrieve(
    embeddings: np.ndarray,
    identities: Sequence[int] | np.ndarray,
    queries: np.ndarray | None = None,
    query_id: Sequence[int] | np.ndarray | None = None,
    ks: Sequence[int] = KS,
    block: int = BLOCK,
) -> Retrieval:
    """Search the gallery, embeddings [N, E], for each query [M, E] by cosine.

    Without queries, each image of the gallery is a query among the others.

    Identities are integers; DISTRACTOR (-1) marks gallery images that are neither a reference nor a query. Ties count
    against the query. Cosines are exact on a grid of 2^-26 (see ``_on_grid``), so the result depends neither on
    ``block``, the number of similarities per block, nor on the machine. Memory beyond the inputs: the gallery in
    float64, and two blocks.

    Raises DataError for wrong shapes or values that are not finite; ConfigError for ks below 1.
    """
    ks = check_ks(ks)
    embeddings, identity = check_labelled(embeddings, identities, "gallery")
    order = np.argsort(identity, kind="stable")  # makes the columns of an identity contiguous
    identity, gallery = identity[order], _on_grid(embeddings, order)
    if queries is None:
        query_rows = np.flatnonzero(identity != DISTRACTOR)
        search = _SearchSpace(gallery, identity, gallery, query_rows, identity[query_rows], among_gallery=True)
    else:
        queries, query_ids = check_labelled(queries, [] if query_id is None else query_id, "queries")
        if queries.shape[1] != gallery.shape[1] or (query_ids == DISTRACTOR).any():
            raise DataError(
                f"retrieval: queries {list(queries.shape)} for a gallery {list(gallery.shape)}; embedding sizes must "
                f"be equal, and no query may be a distractor ({DISTRACTOR})"
            )
        query_rows = np.arange(len(queries))
        search = _SearchSpace(gallery, identity, _on_grid(queries, query_rows), query_rows, query_ids, False)
    return _average(_search(search, max(ks), block), ks, len(gallery))


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Return the ks of recall@k, ascending and unique. Raises ConfigError unless they are integers of at least 1."""
    good = isinstance(ks, Sequence) and all(isinstance(k, int) and not isinstance(k, bool) and k >= 1 for k in ks)
    if not good or not ks:
        raise ConfigError(f"retrieval: ks={ks!r}; a list of integers of at least 1 is needed")
    return tuple(sorted(set(ks)))


def _on_grid(embeddings: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Unit vectors of the rows ``order``, rounded to multiples of 2^-26, as integers in float64 [M, E].

    Dot products of such integers are integers below 2^53 (by the Cauchy-Schwarz inequality), so float64 computes them
    exactly, in any order of summation. A cosine changes by less than 1e-7, as from rounding embeddings to float32.
    """
    grid = np.empty((len(order), embeddings.shape[1]), np.float64)
    for start in range(0, len(order), ROWS):
        rows = slice(start, start + ROWS)
        grid[rows] = np.rint(normalize(embeddings[order[rows]]) * GRID)
    return grid


def _search(search: _SearchSpace, max_rank: int, block: int) -> _QueryResults:
    """The results of each query; the rank of the nearest reference is exact up to ``max_rank``."""
    first, last = (np.searchsorted(search.identity, search.query_ids, side=side) for side in ("left", "right"))
    count = len(search.query_rows)
    found = _QueryResults(
        last - first - int(search.among_gallery), np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    )
    pending = np.flatnonzero(found.references)
    step = max(1, block // max(1, len(search.gallery)))
    for start in range(0, len(pending), step):
        now = pending[start : start + step]
        for query, cosine in zip(now, search.queries[search.query_rows[now]] @ search.gallery.T):
            targets = cosine[first[query] : last[query]].copy()
            cosine[first[query] : last[query]] = -np.inf
            if search.among_gallery:
                targets = np.delete(targets, search.query_rows[query] - first[query])
            place = _ranks(np.sort(targets)[::-1], cosine, max_rank)
            inside = place[place <= len(place)]
            found.nearest[query] = place[0]
            found.precision[query] = len(inside) / len(place)
            found.average[query] = np.sum(np.arange(1, len(inside) + 1) / inside) / len(place)
    return found


def _ranks(targets: np.ndarray, others: np.ndarray, max_rank: int) -> np.ndarray:
    """The ranks from 1 of ``targets`` [R], descending, among themselves and ``others``. Ranks beyond both R and
    ``max_rank`` are lower bounds."""
    limit = max(max_rank, len(targets))
    closer = others[others >= targets[-1]]
    if len(closer) > limit:
        closer = np.partition(closer, len(closer) - limit)[-limit:]
    closer.sort()
    return np.arange(1, len(targets) + 1) + len(closer) - np.searchsorted(closer, targets, side="left")


def _average(found: _QueryResults, ks: Sequence[int], num_gallery: int) -> Retrieval:
    asked = found.references > 0
    number, without_reference = int(asked.sum()), int((~asked).sum())
    if not number:
        return Retrieval(dict.fromkeys(ks), None, None, None, 0, without_reference, num_gallery)
    rate = {k: float(np.mean(found.nearest[asked] <= k)) for k in (*ks, 1)}
    precision, average = float(found.precision[asked].mean()), float(found.average[asked].mean())
    return Retrieval({k: rate[k] for k in ks}, rate[1], precision, average, number, without_reference, num_gallery)
