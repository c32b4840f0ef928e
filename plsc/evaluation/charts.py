"""The ROC curve and the score histograms of a verification set as SVG. Colours are CSS variables of the page."""

from __future__ import annotations

import math

import numpy as np

from plsc.evaluation.page_data import PageData
from plsc.evaluation.verification import Verification

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 466, 14, 252  # the plot area
FLOORS = (0.0, 0.5, 0.8, 0.9, 0.95)  # lowest values of the TAR axis, which has five intervals
RESOLUTION = 0.5  # pixels: finer steps of a curve are left out, which keeps the SVG small for any number of pairs


def roc_chart(result: Verification) -> str:
    """TAR over FAR (logarithmic). An FAR of 0 is drawn at the left edge, at half of one false accept.

    The curve has steps, so that it shows only values that a threshold reaches, as ``tar_at_far`` does.
    """
    low = math.log10(0.5 / result.num_different)
    first = float(result.tpr[result.fpr == 0].max())  # accepted without one false accept
    bottom = max(floor for floor in FLOORS if floor <= first)

    def x(far: np.ndarray | float) -> np.ndarray:
        return LEFT + (RIGHT - LEFT) * (1 - np.log10(np.maximum(far, 10.0**low)) / low)

    def y(tar: np.ndarray | float) -> np.ndarray:
        return BOTTOM - (BOTTOM - TOP) * (np.maximum(tar, bottom) - bottom) / (1 - bottom)

    parts = []
    for power in range(math.ceil(low), 1):
        parts.append(_grid_line_x(float(x(10.0**power)), f"{10.0**power:g}"))
    for tar in np.linspace(bottom, 1, 6):
        parts.append(_grid_line_y(float(y(tar)), f"{tar:.2f}"))
    points = _points(x(np.repeat(result.fpr, 2)[1:]), y(np.repeat(result.tpr, 2)[:-1]))
    parts.append(f'<polyline class="roc" points="{points}"/>')
    names = "FAR: fraction of different pairs accepted", "TAR: fraction of same pairs accepted"
    return _chart("ROC curve, TAR over FAR", *names, parts)


def score_chart(data: PageData) -> str:
    """Histograms of the cosines of same and of different pairs, each normalized by its own count, and the threshold."""
    low, high = float(data.edges[0]), float(data.edges[-1])
    fractions = [counts / max(1, counts.sum()) for counts in (data.different, data.same)]
    top = max(float(fraction.max()) for fraction in fractions)

    def x(score: np.ndarray | float) -> np.ndarray:
        return LEFT + (RIGHT - LEFT) * (np.asarray(score) - low) / (high - low)

    def y(fraction: np.ndarray | float) -> np.ndarray:
        return BOTTOM - (BOTTOM - TOP) * np.asarray(fraction) / (1.05 * top)

    parts = []
    step = 0.1 if high - low <= 1.0 else 0.2
    for tick in np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step:
        parts.append(_grid_line_x(float(x(tick)), f"{tick + 0.0:.1f}".replace("-0.0", "0.0")))
    for fraction in _ticks(top):
        parts.append(_grid_line_y(float(y(fraction)), f"{100 * fraction:.3g} %"))
    for kind, fraction in zip(("different", "same"), fractions):
        across = np.repeat(x(data.edges), 2)
        up = y(np.concatenate([[0], np.repeat(fraction, 2), [0]]))
        parts.append(f'<polygon class="{kind}" points="{_points(across, up)}"/>')
    at = float(x(data.threshold))
    parts.append(f'<line class="threshold" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
    return _chart("Scores of same and different pairs", "score: cosine of the pair", "fraction of its kind", parts)


def _ticks(top: float) -> np.ndarray:
    """At most 6 values 0, s, 2s, ... up to ``top``, with s = 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(top / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if 5 * factor * power >= top * (1 - 1e-9))
    return np.arange(math.floor(top / step + 1e-9) + 1) * step


def _points(across: np.ndarray, up: np.ndarray) -> str:
    """Points of a curve on a grid of GRAIN pixels, without repeated points and the inner points of lines."""
    grid = np.round(np.stack([across, up], axis=1) / RESOLUTION).astype(np.int64)
    grid = grid[np.append(True, (np.diff(grid, axis=0) != 0).any(axis=1))]
    step = np.diff(grid, axis=0)
    straight = (step[1:] == 0) & (step[:-1] == 0)  # in one of the two directions; two such steps never turn back
    keep = np.concatenate([[True], ~straight.any(axis=1), [True]]) if len(grid) > 2 else np.ones(len(grid), bool)
    return " ".join(f"{x * RESOLUTION:g},{y * RESOLUTION:g}" for x, y in grid[keep])


def _grid_line_x(at: float, text: str) -> str:
    line = f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{BOTTOM}"/>'
    return f'{line}<text x="{at:.1f}" y="{BOTTOM + 16}" text-anchor="middle">{text}</text>'


def _grid_line_y(at: float, text: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
    return f'{line}<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'


def _chart(title: str, below: str, beside: str, parts: list[str]) -> str:
    middle = (TOP + BOTTOM) / 2
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}'
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{below}</text>'
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">{beside}</text></svg>'
    )
