"""What was found, as one page with images."""

from __future__ import annotations

import numpy as np

from plsc.cleaning.find import Pair
from plsc.cleaning.removal import nearness
from plsc.cleaning.report import Report
from plsc.data.checking.page import MOST_SHOWN, figure, sheet, small
from plsc.data.contact_sheet import encode_png
from plsc.errors import DataError
from plsc.files import html


def clean_page(report: Report) -> str:
    """The page; up to MOST_SHOWN examples of a kind are read once more, those that are surest first."""
    found, title = report.findings, f"{report.dataset.source.place}: what {report.model} finds in it"
    examples = report.examples()
    lines = [*report.warnings(), *report.notes]
    parts = ["<h1>Training data by embeddings</h1>", *(f"<p>{html.text(line)}</p>" for line in [title, *lines])]
    parts.append(html.table(["", "number", ""], [list(row) for row in report.rows()]))
    parts += _labels(report, examples)
    parts.append(_section("Classes to merge", len(found.merges.pairs), [
        figure(report, [int(examples[a]), int(examples[b])], f"estimated cosine {cosine:.3f}")
        for (a, b), cosine in zip(found.merges.pairs[:MOST_SHOWN], found.merges.cosines)
    ], "The image nearest to the centre of each."))  # fmt: skip
    parts.append(_section("Classes to split", len(found.splits), [
        figure(report, [int(part[0]) for part in one.parts],
               f"{len(one.parts[0])} and {len(one.parts[1])} images, estimated cosine {one.cosine:.3f}")
        for one in found.splits[:MOST_SHOWN]
    ], "An image of each part."))  # fmt: skip
    parts.append(_section("Copies in two classes", len(found.copies), [
        figure(report, [one.index, one.other], nearness(one)) for one in _surest(found.copies)
    ], "The first one is farther from its centre."))  # fmt: skip
    parts.append(_section("Leaks", len(found.leaks), [
        figure(report, [one.index], nearness(one)) + _of_set(report, one.set_name, one.other)
        for one in _surest(found.leaks)
    ], "A training image, and the one of the verification set."))  # fmt: skip
    known = sorted(found.known, key=lambda one: -one.cosine)[:MOST_SHOWN]
    parts.append(_section("Known identities", len(found.known), [
        figure(report, [int(examples[one.label])], f"estimated cosine {one.cosine:.3f}")
        + _of_set(report, one.set_name, int(one.images[0])) for one in known
    ], "The image nearest to the centre of the class, and one of the verification set."))  # fmt: skip
    return html.page(title, "\n".join(part for part in parts if part))


def _labels(report: Report, examples: np.ndarray) -> list[str]:
    """Mislabelled images, each beside an image of the class that it is near to, and outliers."""
    far, found = report.findings.far, report.findings
    wrong = np.flatnonzero(far.mislabelled)
    wrong = wrong[np.argsort(far.own[wrong] - far.cosine[wrong], kind="stable")]
    outliers = found.outliers[np.argsort(found.own[found.outliers], kind="stable")]
    return [
        _section("Mislabelled images", len(wrong), [
            figure(report, [int(far.index[i]), int(examples[far.nearest[i]])],
                   f"cosine {far.own[i]:.3f} with its centre, {far.cosine[i]:.3f} with that of the other class")
            for i in wrong[:MOST_SHOWN]
        ], "Beside each the image nearest to the centre of the class to which it may belong."),
        _section("Outliers", len(outliers), [
            figure(report, [int(i), int(examples[report.labels[i]])], f"cosine {found.own[i]:.3f} with its centre")
            for i in outliers[:MOST_SHOWN]
        ], "Beside each the image nearest to the centre of its class."),
    ]  # fmt: skip


def _surest(pairs: list[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda one: -(one.cosine or 0))[:MOST_SHOWN]


def _section(title: str, count: int, figures: list[str], text: str) -> str:
    if not figures:
        return ""
    shown = f", {len(figures)} of them are shown" if len(figures) < count else ""
    return f"<h2>{title}</h2><p>{count:,}{shown}. {text}</p>{sheet(figures)}"


def _of_set(report: Report, name: str, index: int) -> str:
    try:
        image, where = report.set_images[name](index)
        picture = html.image(encode_png(small(image, report.dataset.image_shape[0])), where)
    except DataError as error:
        picture, where = "", str(error)
    return f"<figure>{picture}<figcaption>{html.text(where)}</figcaption></figure>"
