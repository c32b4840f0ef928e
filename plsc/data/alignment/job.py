"""Aligns all images of a folder or list into a new directory: by several processes, and resumable."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from plsc.data.alignment.images import ImageFiles, output_names
from plsc.data.alignment.progress import Progress, remove_progress
from plsc.data.alignment.similarity import SIZES, UnusablePoints, align
from plsc.data.containers.files import shown
from plsc.data.fork_pool import in_order, progress_line
from plsc.data.jpeg import JpegDecoder, open_jpeg_decoder
from plsc.data.transforms import decode_image, read_image
from plsc.errors import DataError
from plsc.files.atomic import put_directory
from plsc.files.working_directory import working_directory

NO_LANDMARKS, SEVERAL, UNREADABLE = "no landmarks", "several faces", "unreadable image"
REFUSE, LARGEST = "refuse", "largest"
FORMATS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "png": {"format": "PNG"},
}
BLOCK = 64  # images that a process is given at a time
LOG_SECONDS = 5


class Finder(Protocol):
    """Finds faces. digest: a text that differs for other points."""

    digest: str

    def find(self, path: str, pixels: np.ndarray) -> list[np.ndarray]:
        """The faces of an image, points float64 [5, 2], the largest first. pixels: uint8 [H, W, 3]."""
        ...


@dataclass(frozen=True)
class Style:
    """How images are aligned. size: a key of SIZES. suffix: a key of FORMATS. several: of an image with several faces,
    "refuse" or "largest"."""

    size: str = "112x112"
    suffix: str = "jpg"
    several: str = REFUSE


@dataclass(frozen=True)
class Aligned:
    """The result. path: the directory. images: how many there were; refused: {kind: (how many, an example)};
    refused_list: the file that lists them, "" if there are none."""

    path: str
    images: int
    refused: dict[str, tuple[int, str]]
    refused_list: str

    @property
    def aligned(self) -> int:
        """How many images were written."""
        return self.images - sum(count for count, _ in self.refused.values())


class Refused(Exception):
    """An image that is not aligned."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Job:
    """What the processes do: align one image, or a block of them."""

    def __init__(self, images: ImageFiles, finder: Finder, style: Style, directory: str) -> None:
        self._images, self._finder, self._style, self._directory = images, finder, style, directory
        self._names = output_names(images.paths, style.suffix)
        self._jpeg: JpegDecoder | None = open_jpeg_decoder("auto")

    def digest(self) -> str:
        """A text that differs for other images, points or style."""
        found = hashlib.sha256(repr((self._style, self._finder.digest)).encode())
        for path in self._images.paths:
            found.update(os.fsencode(path) + b"\0")
        return found.hexdigest()[:32]

    def block(self, first: int) -> list[tuple[int, str, str]]:
        """Align the images of a block. Returns (index, kind, text) of those that are refused."""
        refused = []
        for index in range(first, min(first + BLOCK, len(self._names))):
            try:
                self._one(index)
            except Refused as one:
                refused.append((index, one.kind, str(one)))
        return refused

    def _one(self, index: int) -> None:
        path = self._images.paths[index]
        try:
            pixels = decode_image(read_image(os.path.join(self._images.root, path)), shown(path), jpeg=self._jpeg)
        except OSError as error:
            raise Refused(UNREADABLE, error.strerror or str(error)) from None
        except DataError as error:
            raise Refused(UNREADABLE, str(error)) from None
        faces = self._finder.find(path, pixels)
        if not faces:
            raise Refused(NO_LANDMARKS, "no face is known in it")
        if len(faces) > 1 and self._style.several == REFUSE:
            raise Refused(SEVERAL, f"{len(faces)} faces; --several-faces largest takes the largest")
        try:
            face = align(pixels, faces[0], SIZES[self._style.size])
        except UnusablePoints as error:
            raise Refused(error.kind, str(error)) from None
        self._write(os.path.join(self._directory, self._names[index]), face)

    def _write(self, path: str, face: np.ndarray) -> None:
        grey = (face == face[:, :, :1]).all()
        encoded = io.BytesIO()
        Image.fromarray(face[:, :, 0] if grey else face).save(encoded, **FORMATS[self._style.suffix])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(encoded.getvalue())


def _require_outside(final: str, images: ImageFiles, output: str) -> None:
    """Raise DataError for an output in the folder of the images: it would be images, of a class, from then on."""
    root, place = os.path.realpath(images.root), os.path.realpath(final)
    if images.walked and os.path.commonpath([root, place]) == root:
        raise DataError(
            f"--output {shown(output)}: is in the folder of the images, {shown(images.root)}, and would be taken for "
            "images of it; give a place outside"
        )


def align_images(
    images: ImageFiles, finder: Finder, style: Style, output: str, processes: int,
    log: Callable[[str], None] = lambda line: None,
) -> Aligned:  # fmt: skip
    """Align ``images`` into the directory ``output``, which is created at the end.

    processes: 0 works in this one. Images that are refused are counted by kind, and listed in ``output.refused.tsv``
    (path, kind, reason). An interrupted job is in ``output.unfinished`` and is continued. Raises DataError if
    ``output`` exists, cannot be written, is in the folder of the images or written by another process, and if
    ``output.unfinished`` is another job.
    """
    final = os.path.abspath(output)
    _require_outside(final, images, output)
    aside, listed = f"{final}.unfinished", f"{final}.refused.tsv"
    for path in (final, listed):
        if os.path.lexists(path) and not (path == listed and os.path.lexists(aside)):
            raise DataError(f"--output {shown(path)}: is there already; give another place, or remove it")
    job = Job(images, finder, style, aside)
    count = len(images.paths)
    try:
        with working_directory(aside, f"--output {shown(output)}"), Progress(aside, job.digest(), count) as progress:
            if progress.done:
                log(f"goes on behind {progress.done:,} of {count:,} images")
            before, began = progress.done, time.monotonic()
            told = began
            for first, refused in in_order(job.block, range(before, count, BLOCK), processes, "alignment"):
                done = min(first + BLOCK, count)
                progress.add(done, [(images.paths[index], kind, text) for index, kind, text in refused])
                now = time.monotonic()
                if now - told >= LOG_SECONDS:
                    told = now
                    progress.save()
                    log(progress_line(done, count, now - began, before))
            summary = progress.finish(listed)
            put_directory(aside, final)
            remove_progress(final)
    except OSError as error:
        raise DataError(f"--output {shown(output)}: cannot be written: {error.strerror or error}") from error
    return Aligned(final, count, summary, listed if summary else "")
