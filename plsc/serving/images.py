"""Which images a folder or a list names, and how one of another size becomes one of the net's."""

from __future__ import annotations

import os
import re

import numpy as np
from PIL import Image

from plsc.errors import ConfigError, DataError
from plsc.evaluation.folders import SUFFIXES
from plsc.files import safe_open

RESIZE_MODES = ("stretch", "crop", "refuse")

_LABEL = re.compile(r"[ \t]+[+-]?[0-9]+$")


def resize_image(image: np.ndarray, height: int, width: int, how: str, name: str) -> np.ndarray:
    """uint8 [H, W, C] of any size -> [height, width, C], C = 1 or 3.

    An image of this size stays as it is. Another is sampled anew with Pillow's bilinear filter, which averages where
    it makes smaller: "stretch" each side by itself; "crop" first cuts both ends of the longer side off, to whole
    pixels, so that the proportions are those of the net; "refuse" raises DataError.
    """
    if how not in RESIZE_MODES:
        raise ConfigError(f"resize={how!r}: must be one of {', '.join(RESIZE_MODES)}")
    if image.shape[:2] == (height, width):
        return image
    if how == "refuse":
        raise DataError(f"{name}: is {image.shape[1]} x {image.shape[0]}, must be {width} x {height} (resize: refuse)")
    if how == "crop":
        scale = min(image.shape[0] / height, image.shape[1] / width)
        kept = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (image.shape[0] - kept[0]) // 2, (image.shape[1] - kept[1]) // 2
        image = np.ascontiguousarray(image[top : top + kept[0], left : left + kept[1]])
    resized = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(resized.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)


def find_images(source: str) -> tuple[list[str], int]:
    """(paths, number of files passed over) of a folder or a list. Raises DataError where there is no image.

    A folder is read with all that is below it, in the order of the paths, as far as the names end as images do.
    A list has a path a line, relative to where the list lies; a label behind a tab or a space may follow.
    """
    if os.path.isdir(source):
        paths, others = _list_folder(source)
    else:
        paths, others = _read_list(source), 0
    if not paths:
        raise DataError(f"{source}: no image in it ({others} other files); names must end in {', '.join(SUFFIXES)}")
    return paths, others


def _list_folder(folder: str) -> tuple[list[str], int]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}")

    files = [os.path.join(where, name) for where, _, names in os.walk(folder, onerror=refuse) for name in names]
    paths = [path for path in files if path.lower().endswith(SUFFIXES)]
    return sorted(paths, key=lambda path: path.split(os.sep)), len(files) - len(paths)


def _read_list(source: str) -> list[str]:
    try:
        with safe_open.open_text(source, safe_open.LIST, "utf-8-sig", "surrogateescape", "\n") as file:
            lines = [line.strip("\r\n") for line in file]
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}; give a folder of images or a list of their paths") from None
    root = os.path.dirname(source)
    return [os.path.join(root, _path(line)) for line in lines if line.strip()]


def _path(line: str) -> str:
    """What stands before the last tab, or before a number at the end, or the whole line."""
    return line.rpartition("\t")[0].strip() if "\t" in line.strip() else _LABEL.sub("", line.strip())
