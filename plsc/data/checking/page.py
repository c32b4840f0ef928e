"""What a check has found, as one page with images."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from plsc.data.checking.look import KINDS, WRONG_SIZE
from plsc.data.checking.report import Classes, Report
from plsc.data.contact_sheet import encode_png
from plsc.data.datasets import SourceDataset
from plsc.data.pixels import from_pillow, to_pillow
from plsc.data.transforms import decode_image
from plsc.errors import DataError
from plsc.files import html

MOST_SHOWN = 40  # images, or pairs, of a kind
MOST_ROWS = 200  # of a table
_SIDE = 112  # pixels: larger images are made smaller


class Described(Protocol):
    """What a figure needs: the images, and the text of a class."""

    @property
    def dataset(self) -> SourceDataset: ...

    def class_text(self, label: int) -> str: ...


def check_page(report: Report) -> str:
    """The page; up to MOST_SHOWN images or pairs of a kind are read once more."""
    parts = [f"<h1>Training data</h1><p>{html.text(_verdict(report))}</p>",
             html.table(["", "number", ""], [list(row) for row in report.rows()])]  # fmt: skip
    for kind, text in KINDS.items():
        listed = [one for one in report.problems if one.kind == kind]
        if listed:
            parts.append(f"<h2>{html.text(kind)}</h2><p>An image that {html.text(text)}: {report.counts[kind]:,}.</p>")
            parts.append(html.table(["index", ""], [[one.index, one.text] for one in listed[:MOST_ROWS]]))
        if kind == WRONG_SIZE:
            parts.append(sheet([figure(report, [one.index], "") for one in listed[:MOST_SHOWN]]))
    groups = [[int(index) for index in group[:2]] for group in report.copies.groups[:MOST_SHOWN]]
    parts.append(_section("Same bytes", [figure(report, pair, "") for pair in groups], report.copies.num_groups))
    near = [figure(report, [one, other], f"{bits} of 128 bits differ")
            for one, other, bits in report.near.pairs[:MOST_SHOWN]]  # fmt: skip
    parts.append(_section("Near duplicates", near, report.near.num_pairs))
    for title, found in (("Classes without images", report.empty), ("Classes with one image", report.single)):
        parts.append(_class_table(report, title, found))
    return html.page(_verdict(report), "\n".join(part for part in parts if part))


def _verdict(report: Report) -> str:
    end = "training would stop" if report.stops else "training can use all images"
    return f"{report.dataset.source.place}: {len(report.dataset):,} images were decoded; {end}"


def _section(title: str, figures: list[str], count: int) -> str:
    if not figures:
        return ""
    shown = f", the first {len(figures)}" if len(figures) < count else ""
    return f"<h2>{title}</h2><p>{count:,}{shown}; two of each are shown.</p>{sheet(figures)}"


def sheet(figures: list[str]) -> str:
    """Figures side by side; "" for none."""
    return f'<div class="sheet">{"".join(figures)}</div>' if figures else ""


def _class_table(report: Report, title: str, found: Classes) -> str:
    if not found.count:
        return ""
    shown = ", ".join(map(report.class_text, found.labels[:MOST_ROWS]))
    rest = f" and {found.count - MOST_ROWS:,} more" if found.count > MOST_ROWS else ""
    return f"<h2>{title}</h2><p>{found.count:,}: {html.text(shown)}{rest}</p>"


def figure(report: Described, indices: list[int], remark: str) -> str:
    """One or two images with their names and classes, and a remark; they are read once more."""
    dataset, images, lines = report.dataset, "", [remark] if remark else []
    for index in indices:
        name = dataset.source.name(index)
        try:
            image, label = dataset.read(index)
            if not dataset.source.ready:
                images += html.image(encode_png(small(image, dataset.image_shape[0])), name)
            lines.append(f"{name}, label {report.class_text(label)}")
        except DataError as error:  # the file has changed since
            lines.append(str(error))
    caption = "<br>".join(map(html.text, lines))
    kind = "pair" if len(indices) > 1 else "one"
    return f'<figure class="{kind}">{images}<figcaption>{caption}</figcaption></figure>'


def small(image: bytes | np.ndarray, channels: int) -> np.ndarray:
    """Pixels uint8 [H, W, C] of an encoded or decoded image, at most 112 on a side."""
    picture = to_pillow(decode_image(image, channels=channels))
    picture.thumbnail((_SIDE, _SIDE))
    return from_pillow(picture)
