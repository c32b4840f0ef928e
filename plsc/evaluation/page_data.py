"""The data of one verification set for the HTML page. Its size does not depend on the size of the set."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.verification import Verification

WORST = 20  # most pairs that are shown
SIDE = 112  # pixels: the longer side of an image on the page, at most
BINS = 80
QUALITY = 85  # of JPEG


@dataclass(frozen=True)
class Mistake:
    """A misclassified pair: its number, its cosine, whether it is a same pair, both images as JPEG."""

    pair: int
    score: float
    same: bool
    images: tuple[bytes, bytes]


@dataclass(frozen=True)
class PageData:
    """One set. Scores are cosines; "same" is score > threshold.

    edges: float64 [BINS + 1], ascending. same, different: int64 [BINS], numbers of pairs with a score in each bin.
    mistakes: the worst ones, those farthest from the threshold first. num_mistakes: the number of all.
    """

    name: str
    result: Verification
    threshold: float
    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray
    mistakes: tuple[Mistake, ...]
    num_mistakes: int


def page_data(
    name: str,
    result: Verification,
    distance: np.ndarray,
    issame: Sequence[bool],
    load_image: Callable[[int], np.ndarray],
    worst: int = WORST,
) -> PageData:
    """Return the page data of a set with squared distances [P] (see ``pair_distances``) and flags [P].

    load_image(i): image i of 2P as uint8 [H, W, 3]; called for the worst pairs only. worst: 0 to 20 pairs.
    Raises ConfigError for another ``worst``, DataError for different lengths.
    """
    if not 0 <= worst <= WORST:
        raise ConfigError(f"page: {worst} worst pairs; allowed: 0 to {WORST}")
    distance, same = np.asarray(distance, np.float64), np.asarray(issame, bool)
    if distance.ndim != 1 or distance.shape != same.shape:
        raise DataError(
            f"page: distances {list(distance.shape)} for flags {list(same.shape)}; expected one of each per pair"
        )
    wrong = np.flatnonzero((distance < result.threshold) != same)
    by_how_much = np.abs(distance[wrong] - result.threshold)
    first = wrong[np.argsort(-by_how_much, kind="stable")][:worst]
    score, threshold = 1.0 - distance / 2, 1.0 - result.threshold / 2
    edges = np.linspace(*_range(score, threshold), BINS + 1)
    return PageData(
        name,
        result,
        threshold,
        edges,
        np.histogram(score[same], edges)[0],
        np.histogram(score[~same], edges)[0],
        tuple(
            Mistake(int(i), float(score[i]), bool(same[i]), (_jpeg(load_image(2 * i)), _jpeg(load_image(2 * i + 1))))
            for i in map(int, first)
        ),
        len(wrong),
    )


def _range(score: np.ndarray, threshold: float) -> tuple[float, float]:
    """Multiples of 0.1 in [-1, 1] that enclose all scores and the threshold; at least 0.1 apart."""
    low = np.floor(10 * min(score.min(), threshold)) / 10
    high = np.ceil(10 * max(score.max(), threshold)) / 10
    return max(-1.0, min(low, 0.9)), min(1.0, max(high, low + 0.1))


def _jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image  # imported here, so that the metrics need NumPy only

    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
