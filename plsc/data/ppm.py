"""Pixels as files of Netpbm's format PPM (P6, 8 bits): 3 bytes a pixel after a short header, so nothing is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

_HEADER = re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")


def encode_ppm(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] RGB as a file."""
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + np.ascontiguousarray(pixels).tobytes()


def decode_ppm(data: bytes, is_good: Callable[[tuple[int, int]], bool]) -> np.ndarray | None:
    """uint8 [H, W, 3] of a file as ``encode_ppm`` writes it, if its (height, width) is good; None for any other."""
    header = _HEADER.match(data)
    if header is None:
        return None
    width, height = int(header[1]), int(header[2])
    if len(data) != header.end() + 3 * width * height or not is_good((height, width)):
        return None
    return np.frombuffer(data, np.uint8, offset=header.end()).reshape(height, width, 3)
