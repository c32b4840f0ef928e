"""A contact sheet of training images: what the model sees, with labels and names, as HTML and as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from plsc.data.datasets import SourceDataset
from plsc.data.sampler import SHUFFLED, GlobalBatchSampler, SampleOrder
from plsc.data.transforms import PIXEL_MEAN
from plsc.errors import DataError
from plsc.files import html

_LINE = 13  # pixels of a line of text in the PNG
_LEAST_WIDTH = 96  # of a cell, so that a label can be read
_CHARACTER = 6  # pixels of a character of Pillow's own font, about


@dataclass(frozen=True)
class Sample:
    """One image of the sheet.

    index: in the source. label, name: of the class; None where they are not known. pixels: uint8 [H, W, C], C = 1 or 3;
    None for an image that cannot be used, with the ``problem``.
    """

    index: int
    label: int | None = None
    name: str | None = None
    pixels: np.ndarray | None = None
    problem: str = ""

    @property
    def caption(self) -> str:
        """Index, label and name."""
        label = "" if self.label is None else f", label {self.label}"
        return f"image {self.index}{label}" + ("" if self.name is None else f": {self.name}")


def samples(
    dataset: SourceDataset, seed: int, count: int, epoch: int = 0, order: SampleOrder = SHUFFLED
) -> list[Sample]:
    """The first ``count`` images of an epoch of a run with this seed, as the model sees them then.

    An image that cannot be used is a sample with a problem. Raises DataError for a model of 2 channels, or more than 3.
    """
    if dataset.image_shape[0] not in (1, 3):
        raise DataError(f"model.image_shape={list(dataset.image_shape)}: only 1 or 3 channels can be shown")
    length = order.epoch_length(len(dataset))
    epochs, indices = GlobalBatchSampler(length, length, 0, 1, seed, order).indices(epoch)
    return [_sample(dataset, int(index), int(one)) for one, index in zip(epochs[:count], indices[:count])]


def _sample(dataset: SourceDataset, index: int, epoch: int) -> Sample:
    try:
        image, label = dataset.get(index, epoch)
    except DataError as error:
        return Sample(index, problem=str(error))
    names = dataset.class_names
    name = names[int(label)] if names is not None and label < len(names) else None
    return Sample(index, int(label), name, denormalise(image, dataset.preparation.pixel_std))


def denormalise(image: np.ndarray, pixel_std: float) -> np.ndarray:
    """float32 [C, H, W] -> uint8 [H, W, C]: what plsc.data.normalise was given."""
    return np.clip(np.rint(image.transpose(1, 2, 0) * pixel_std + PIXEL_MEAN), 0, 255).astype(np.uint8)


def sheet_html(shown: Sequence[Sample], title: str) -> str:
    """The page; the images are PNG within it."""
    figures = "".join(
        f"<figure>{_html_image(one)}<figcaption>{html.text(one.caption)}{_html_problem(one)}</figcaption></figure>"
        for one in shown
    )
    return html.page(title, f'<h1>Training images</h1><p>{html.text(title)}</p>\n<div class="sheet">{figures}</div>')


def _html_image(one: Sample) -> str:
    return "" if one.pixels is None else html.image(encode_png(one.pixels), one.caption)


def _html_problem(one: Sample) -> str:
    return f"<br>cannot be used: {html.text(one.problem)}" if one.problem else ""


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, C] as PNG, C = 1 or 3."""
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def sheet_png(shown: Sequence[Sample]) -> bytes:
    """The images in rows, as square a sheet as there can be, below each its label and name; not enlarged."""
    sizes = [one.pixels.shape[:2] for one in shown if one.pixels is not None]
    height, width = max((size[0] for size in sizes), default=_LINE), max((size[1] for size in sizes), default=1)
    cell = max(width, _LEAST_WIDTH) + 6, height + 2 * _LINE + 8
    columns = max(1, math.ceil(math.sqrt(len(shown) * cell[1] / cell[0])))
    sheet = Image.new("RGB", (columns * cell[0], math.ceil(len(shown) / columns) * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for number, one in enumerate(shown):
        left, top = number % columns * cell[0] + 3, number // columns * cell[1] + 3
        if one.pixels is None:
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline="red")
        else:
            pixels = one.pixels if one.pixels.shape[2] == 3 else np.repeat(one.pixels, 3, axis=2)
            sheet.paste(Image.fromarray(pixels), (left, top))
        lines = (f"label {one.label}", one.name or "")
        if one.pixels is None:
            lines = (f"image {one.index}", "cannot be used")
        for place, line in enumerate(lines):
            draw.text((left, top + height + place * _LINE), _printable(line, cell[0] // _CHARACTER), fill="black")
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _printable(line: str, most: int) -> str:
    """What Pillow's own font has letters for; the HTML has the whole name."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in line)[:most]
