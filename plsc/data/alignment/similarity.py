"""The similarity transform from five points of a face to their reference positions, and the warp by it.

Points are eye, eye, tip of the nose, corner of the mouth, corner of the mouth, left before right as seen in the image,
in pixels: (0, 0) is the centre of the upper left pixel.
"""

from __future__ import annotations

import numpy as np

from plsc.data.pixels import rounded
from plsc.errors import DataError

# Where the points are in an aligned image of 112 x 112 pixels; those of 96 x 112 are 8 pixels further left.
_REFERENCE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
SIZES = {"112x112": (112, 112), "96x112": (96, 112)}  # width, height

DEGENERATE, MIRRORED, OUTSIDE = "degenerate points", "mirrored points", "face outside the image"
_LEAST_SPREAD = 1.0  # root mean square distance of the points from their mean, in pixels
_LEAST_AREA = 1e-3  # of orientation, which is about 1 for a frontal face


class UnusablePoints(DataError):
    """Points that give no alignment. kind: DEGENERATE, MIRRORED or OUTSIDE."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def reference_points(width: int) -> np.ndarray:
    """float64 [5, 2]: the positions in an aligned image of this width, 112 or 96."""
    return _REFERENCE - [(112 - width) / 2, 0.0]


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 2x3 matrix [sR | t] that minimises sum |sR p + t - q|^2 over points p, q [n, 2], without reflection.

    Umeyama 1991, Least-Squares Estimation of Transformation Parameters Between Two Point Patterns, eq. 40 to 43, for
    two dimensions: as complex numbers sR is a factor, so that the least squares have a solution without an SVD.
    points must not all be equal.
    """
    source, goal = points @ [1, 1j], target @ [1, 1j]
    from_mean = source - source.mean()
    factor = np.vdot(from_mean, goal - goal.mean()) / np.vdot(from_mean, from_mean).real
    shift = goal.mean() - factor * source.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def spread(points: np.ndarray) -> float:
    """The size of a face: the root mean square distance of its points [5, 2] from their mean."""
    return float(np.sqrt(np.mean(np.sum((points - points.mean(0)) ** 2, 1))))


def orientation(points: np.ndarray) -> float:
    """The cross product of eye to eye and eyes to mouth, divided by spread^2: above 0, or below if left is right."""
    across = points[1] - points[0]
    down = (points[3] + points[4] - points[0] - points[1]) / 2
    return float((across[0] * down[1] - across[1] * down[0]) / max(spread(points), _LEAST_SPREAD) ** 2)


def require_usable(points: np.ndarray, width: int, height: int) -> None:
    """Raise UnusablePoints for points [5, 2] that cannot be those of a face in an image of this size."""
    shown = ", ".join(f"({x:g}, {y:g})" for x, y in points)
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise UnusablePoints(DEGENERATE, f"not all points are numbers in pixels: {shown}")
    if spread(points) < _LEAST_SPREAD:
        raise UnusablePoints(DEGENERATE, f"the points are one point, or not in pixels: {shown}")
    turned = orientation(points)
    if abs(turned) < _LEAST_AREA:
        raise UnusablePoints(DEGENERATE, f"eyes and mouth are on one line: {shown}")
    if turned < 0:
        raise UnusablePoints(MIRRORED, f"left and right are exchanged, or eyes and mouth: {shown}")
    x, y = points.mean(0)
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise UnusablePoints(OUTSIDE, f"the points are outside of {width} x {height} pixels: {shown}")


def align(pixels: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The aligned face, uint8 [H, W, C], of an image uint8 [h, w, C] and its points [5, 2].

    size: (width, height). Raises UnusablePoints.
    """
    require_usable(points, pixels.shape[1], pixels.shape[0])
    return warp(pixels, similarity(points, reference_points(size[0])), size)


def warp(pixels: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image uint8 [h, w, C] moved by a 2x3 matrix, as uint8 [H, W, C]. size: (width, height).

    Bilinear in float64, rounded, without antialiasing, and black outside of the image: as cv2.warpAffine, by which the
    images that most published models were trained on were aligned.
    """
    linear = np.linalg.inv(matrix[:, :2])
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    at = np.stack([columns, rows], -1) @ linear.T - linear @ matrix[:, 2]  # [H, W, 2], x and y in the image
    corner = np.floor(at)
    right, below = np.moveaxis(at - corner, -1, 0)
    x, y = np.moveaxis(corner.astype(np.int64), -1, 0)
    total = np.zeros((*x.shape, pixels.shape[2]))
    for dx, dy, weight in (
        (0, 0, (1 - right) * (1 - below)), (1, 0, right * (1 - below)),
        (0, 1, (1 - right) * below), (1, 1, right * below),
    ):  # fmt: skip
        total += _at(pixels, x + dx, y + dy) * weight[:, :, None]
    return rounded(total)


def _at(pixels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The pixels at integer positions [H, W], 0 outside of the image."""
    height, width = pixels.shape[:2]
    inside = (0 <= x) & (x < width) & (0 <= y) & (y < height)
    return pixels[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] * inside[:, :, None]
