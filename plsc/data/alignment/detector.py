"""Finds faces and their five points by the package yuface, which brings its model."""

from __future__ import annotations

import importlib.metadata

import numpy as np
from PIL import Image

from plsc.data.alignment.similarity import spread
from plsc.data.pixels import to_pillow
from plsc.errors import DataError
from plsc.extras import install

_SIDE = 640  # pixels of the longer side in which faces are looked for
_MOST_ENLARGED = 4


class YuFace:
    """The detector of libfacedetection (Wu et al. 2023, YuNet: A Tiny Millisecond-level Face Detector).

    Images are scaled to 640 pixels on the longer side, small ones by 4 at most, as its coordinates are integers. The
    package is loaded by the first ``find``: its threads do not survive a fork. Raises DataError if it is not installed.
    """

    def __init__(self) -> None:
        try:
            self.digest = f"yuface {importlib.metadata.version('yuface')}"
        except importlib.metadata.PackageNotFoundError:
            how = install("detector")
            raise DataError(f"--detector yuface: needs the package yuface, for Python 3.9 to 3.11: {how}") from None

    def find(self, path: str, pixels: np.ndarray) -> list[np.ndarray]:
        """The faces of an image uint8 [H, W, 3], points float64 [5, 2], the largest first."""
        import yuface

        height, width = pixels.shape[:2]
        factor = min(_SIDE / max(height, width), _MOST_ENLARGED)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        scaled = np.asarray(to_pillow(pixels).resize(size, Image.Resampling.BILINEAR))
        _, _, points = yuface.detect(np.ascontiguousarray(scaled[:, :, ::-1]))  # BGR
        found = (np.reshape(points, (-1, 5, 2)) + 0.5) * [width / size[0], height / size[1]] - 0.5
        return sorted(found, key=spread, reverse=True)
