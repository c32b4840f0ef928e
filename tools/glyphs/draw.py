"""One image of one character: drawn, bent, placed on a background, and encoded as JPEG.

Every image has its own random stream, keyed by (seed, purpose, face, character, k). It therefore does not depend
on which process draws it, nor on what was drawn before.
"""

from __future__ import annotations

import io
import math
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from glyphs.fonts import REGULAR_WEIGHT, WEIGHT_RANGE, Face, draw_character

# What a random stream is for: a number in its key, so that no image of a test set is an image of the training set.
PURPOSE_TRAIN, PURPOSE_VAL, PURPOSE_SEEN_NEWFONT, PURPOSE_UNSEEN, PURPOSE_UNSEEN_NEWFONT = range(5)
PURPOSE_CLASSES, PURPOSE_PAIRS, PURPOSE_FIELDS = 16, 17, 18

_NUM_DRAWS = 48
_FIELD = 512


def stream(seed: int, purpose: int, face: int = 0, point: int = 0, k: int = 0) -> np.random.Generator:
    """Counter-based generator of one key: 64 bits of seed, then purpose (8), face (8), code point (24), k (24).

    Only its `random()` is used: NumPy keeps that stable between versions, the other distributions it may change.
    """
    word = purpose << 56 | face << 48 | point << 24 | k
    return np.random.Generator(np.random.Philox(key=np.array([seed, word], dtype=np.uint64)))


def draw_jpeg(seed: int, purpose: int, face: Face, point: int, k: int, size: int) -> bytes:
    """The `k`-th image of a character in a face: a grey JPEG of `size` x `size`, ink darker than the ground."""
    draws = iter(stream(seed, purpose, face.code, point, k).random(_NUM_DRAWS).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(draws)

    weight = between(*WEIGHT_RANGE) if face.variable else REGULAR_WEIGHT
    canvas = size + size // 2
    ink = draw_character(face, chr(point), size, canvas, weight)
    ink = ink.transform((size, size), Image.Transform.MESH, _mesh(between, size, canvas), Image.Resampling.BILINEAR)
    ink = ink.filter(ImageFilter.GaussianBlur(between(0.0, 0.014) * size))
    pixels = _shade(between, np.asarray(ink, dtype=np.float32) / 255.0, size)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=round(between(70, 95)))
    return encoded.getvalue()


def _mesh(between, size: int, canvas: int) -> list:
    """Rotation, shear, scale, offset and a gentle bend, as four quadrilaterals for PIL's MESH transform.

    The 3 x 3 corners of a grid over the output are mapped into the canvas; inside a quadrilateral PIL interpolates.
    """
    angle = math.radians(between(-10.0, 10.0))
    shear = between(-0.2, 0.2)
    scale = between(0.75, 1.0)
    stretch = between(0.9, 1.1)
    right, down = between(-0.07, 0.07) * size, between(-0.07, 0.07) * size
    corners = {}
    for row in range(3):
        for column in range(3):
            x = (column / 2 - 0.5) * size - right
            y = (row / 2 - 0.5) * size - down
            x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
            x, y = (x + shear * y) / (scale * stretch), y * stretch / scale
            corners[row, column] = (
                x + canvas / 2 + between(-0.04, 0.04) * size,
                y + canvas / 2 + between(-0.04, 0.04) * size,
            )
    half = size // 2
    edges = (0, half, size)
    mesh = []
    for row in range(2):
        for column in range(2):
            box = (edges[column], edges[row], edges[column + 1], edges[row + 1])
            # PIL wants the corners as upper left, lower left, lower right, upper right.
            around = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
            mesh.append((box, tuple(value for key in around for value in corners[key])))
    return mesh


def _shade(between, ink: np.ndarray, size: int) -> np.ndarray:
    """Ink [size, size] in 0..1 over a ground with gradient and clouds, plus noise; as uint8."""
    ground = between(120.0, 250.0)
    contrast = between(0.45, 1.0) * ground
    slope_x, slope_y = between(-30.0, 30.0), between(-30.0, 30.0)
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    clouds = _crop(_fields()[0], between, size) * np.float32(between(0.0, 25.0))
    noise = _crop(_fields()[1], between, size) * np.float32(between(0.0, 15.0))
    light = np.float32(ground) + np.float32(slope_x) * ramp[None, :] + np.float32(slope_y) * ramp[:, None] + clouds
    return np.clip(light - np.float32(contrast) * ink + noise, 0, 255).astype(np.uint8)


def _crop(field: np.ndarray, between, size: int) -> np.ndarray:
    top, left = int(between(0, _FIELD)), int(between(0, _FIELD))
    rows = np.arange(top, top + size) % _FIELD
    columns = np.arange(left, left + size) % _FIELD
    return field[rows[:, None], columns]


@cache
def _fields() -> tuple[np.ndarray, np.ndarray]:
    """Clouds (mean 0, about +-1, some 20 pixels wide) and noise (mean 0, variance 1), both [_FIELD, _FIELD].

    Noise is a sum of uniform numbers: exact arithmetic, nearly normal (Irwin-Hall with n = 4, variance n / 12).
    """
    uniform = stream(0, PURPOSE_FIELDS).random((5, _FIELD, _FIELD))
    noise = (uniform[:4].sum(axis=0) - 2.0) / math.sqrt(4 / 12)
    coarse = Image.fromarray((uniform[4, :24, :24] * 255).astype(np.uint8))
    clouds = np.asarray(coarse.resize((_FIELD, _FIELD), Image.Resampling.BICUBIC), dtype=np.float32) / 127.5 - 1.0
    return clouds, noise.astype(np.float32)
