"""Packing: copies all images of a source into a container, stores the progress, and verifies the result."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from plsc.data.class_table import check_names, read_class_table, write_class_table
from plsc.data.containers.files import shown
from plsc.data.datasets import count_images
from plsc.data.label_counts import count_by_class
from plsc.data.packing.formats import WRITERS
from plsc.data.packing.writer import Contents, Writer
from plsc.data.ppm import encode_ppm
from plsc.data.sources import Source
from plsc.data.transforms import decode_image
from plsc.errors import DataError
from plsc.files import plain_json, safe_open
from plsc.files.atomic import put_directory, write_bytes
from plsc.files.working_directory import working_directory

Encoded = Callable[[Source, int], "tuple[bytes, int]"]  # of a source and an index: the image and its label
STATE = "pack.json"
FLUSH_IMAGES = 5_000
LOG_SECONDS = 10


@dataclass(frozen=True)
class Packed:
    """The result. path: the directory. images, classes: their numbers."""

    path: str
    images: int
    classes: int


def pack(
    source: Source, to: str, output: str, log: Callable[[str], None] = lambda line: None, pixels: bool = False
) -> Packed:
    """Write all images of ``source`` into the directory ``output``, which is created after all data were read back.

    source: checked. to: a key of WRITERS. An interrupted job is in ``output.unfinished`` and is continued. Encoded
    images are copied, arrays become PNG; with ``pixels`` all become PPM, the decoded pixels as RGB. Raises DataError if
    ``output`` exists or is where the source looks for images, if ``output.unfinished`` is another job, and if an image
    or a label cannot be written or differs when it is read back.
    """
    final = os.path.abspath(output)
    if os.path.lexists(final):
        raise DataError(f"--output {shown(output)}: is there already; give another place, or remove it")
    if source.takes_in(os.path.join(final, "image.jpg")):
        raise DataError(
            f"--output {shown(output)}: is in the folder of the images, {shown(source.place)}, and would be taken for "
            "one of its classes; give a place outside"
        )
    aside, count = f"{final}.unfinished", count_images(source)
    classes = _classes(source)
    names = _class_names(source, classes)
    source.open_files()
    encoded = _as_pixels if pixels else _encoded
    try:
        with working_directory(aside, f"--output {shown(output)}"):
            job = {"to": to, "images": count, "source": source.record(), **({"pixels": True} if pixels else {})}
            state = _begin(aside, job)
            height, width, _ = decode_image(encoded(source, 0)[0], source.name(0)).shape
            writer = WRITERS[to](aside, state["writer"])
            _write(source, encoded, writer, _Progress(aside, state, count, log))
            writer.finish(Contents(count, classes, (height, width)))
            written = writer.reader(aside, classes, (height, width))
            _compare(source, encoded, written, log)
            _add_names(names, written, classes)
            os.unlink(os.path.join(aside, STATE))
            put_directory(aside, final)
    except OSError as error:
        raise DataError(f"--output {shown(output)}: cannot be written: {error.strerror or error}") from error
    return Packed(final, count, classes)


def _begin(aside: str, job: dict[str, Any]) -> dict[str, Any]:
    """The state of an interrupted job, if there is one. Raises DataError if it is of another job."""
    path = os.path.join(aside, STATE)
    fresh = {"job": job, "done": 0, "writer": {}}
    if os.path.lexists(path):
        try:
            state = plain_json.loads(safe_open.read_bytes(path, safe_open.SETTINGS))
        except ValueError as error:
            raise DataError(f"{shown(path)}: {error}; remove {shown(aside)}") from None
        same = isinstance(state, dict) and state.keys() == fresh.keys() and state["job"] == plain_json.loads(_text(job))
        if not same or not isinstance(state["done"], int) or not isinstance(state["writer"], dict):
            raise DataError(f"{shown(aside)}: holds other data or another format half packed; remove it")
        return state
    if os.listdir(aside):
        raise DataError(f"{shown(aside)}: is there, and no packing that could be continued; remove it to begin anew")
    write_bytes(path, _text(fresh))
    return fresh


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()


class _Progress:
    """The progress: on disk every FLUSH_IMAGES images, in the log every LOG_SECONDS."""

    def __init__(self, aside: str, state: dict[str, Any], count: int, log: Callable[[str], None]) -> None:
        self.first, self.count = state["done"], count
        self._path, self._state, self._log = os.path.join(aside, STATE), state, log
        self._told = time.monotonic()
        if self.first:
            log(f"goes on behind {self.first:,} of {count:,} images")

    def after(self, index: int, writer: Writer) -> None:
        done = index + 1
        if done % FLUSH_IMAGES == 0 and done < self.count:
            self._state = {**self._state, "done": done, "writer": writer.flush()}
            write_bytes(self._path, _text(self._state))
        self._told = tell(self._log, self._told, f"{done:,} of {self.count:,} images written")


def tell(log: Callable[[str], None], last: float, line: str) -> float:
    """Log a line where the last one is LOG_SECONDS old; when the last one was."""
    now = time.monotonic()
    if now - last < LOG_SECONDS:
        return last
    log(line)
    return now


def _write(source: Source, encoded: Encoded, writer: Writer, progress: _Progress) -> None:
    for index in range(progress.first, progress.count):
        writer.add(index, *encoded(source, index))
        progress.after(index, writer)


def _compare(source: Source, encoded: Encoded, written: Source, log: Callable[[str], None]) -> None:
    """Raise DataError if the written data differ from the source."""
    written.check(check_files=True)
    written.open_files()
    count = count_images(source)
    if len(written) != count:
        raise DataError(f"{written.place}: {len(written)} images are read back, {count} were written")
    told = time.monotonic()
    for index in range(count):
        if encoded(source, index) != _encoded(written, index):
            raise DataError(
                f"{written.name(index)}: is not what was written of {source.name(index)}: the disk, or the source has "
                "changed meanwhile; remove the output and pack it again"
            )
        told = tell(log, told, f"{index + 1:,} of {count:,} images read back")


def _encoded(source: Source, index: int) -> tuple[bytes, int]:
    """(encoded image, label). Raises DataError for an invalid image."""
    image, label = source.read(index)
    if source.ready:
        raise DataError(f"{source.place}: gives input of the model, not images; it cannot be packed")
    if isinstance(image, np.ndarray) and image.ndim > 1:
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image).save(file, "PNG")
        return file.getvalue(), int(label)
    return bytes(image), int(label)


def _as_pixels(source: Source, index: int) -> tuple[bytes, int]:
    """(the image as PPM, label). Raises DataError for an invalid image."""
    image, label = _encoded(source, index)
    return encode_ppm(decode_image(image, source.name(index))), label


def _class_names(source: Source, classes: int) -> list[str]:
    """The names of the classes, if there are any. Raises DataError for names that cannot be written."""
    names = list(source.class_names or ())
    if len(names) > classes:
        raise DataError(f"{source.place}: has {len(names)} names for {classes} classes; set classifier.num_classes")
    check_names(names)
    return names


def _add_names(names: list[str], written: Source, classes: int) -> None:
    """Write the table of the names to its place beside the written data, and compare it with them."""
    if not names:
        return
    labels = written.known_labels()
    assert labels is not None and written.class_table
    write_class_table(written.class_table, names, count_by_class(labels, len(names)).tolist())
    if read_class_table(written.class_table, classes).names != names:
        raise DataError(
            f"{shown(written.class_table)}: holds other names than were written: the disk; remove the output and pack "
            "it again"
        )


def _classes(source: Source) -> int:
    """The number of classes. Raises DataError if the source does not know it."""
    if source.num_classes is None:
        raise DataError(f"{source.place}: does not tell how many classes it has; set classifier.num_classes")
    return source.num_classes
