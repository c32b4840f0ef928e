"""What was found: as plain JSON, and as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plsc.cleaning.find import Findings, Pair
from plsc.cleaning.removal import KINDS, Images
from plsc.data.datasets import SourceDataset


@dataclass(frozen=True)
class Report:
    """findings about the images of ``dataset``.

    images: its source and labels. model: its name. set_images: {set: a function that returns (encoded bytes or pixels,
    name) of an image of it}. notes: lines about how it was found.
    """

    dataset: SourceDataset
    images: Images
    findings: Findings
    model: str
    set_images: dict[str, Callable[[int], tuple[Any, str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]"""
        return self.images.labels

    def class_text(self, label: int) -> str:
        """A label with the name of its class, where there is one."""
        names = self.dataset.class_names
        return f"{label} ({names[label]})" if names is not None and 0 <= label < len(names) else str(label)

    def examples(self) -> np.ndarray:
        """For each class the image that is nearest to its centre, int64 [C]; -1 for none."""
        best = np.full(self.dataset.num_classes, -1, np.int64)
        order = np.argsort(self.findings.own, kind="stable")
        best[self.labels[order]] = order  # the last one counts
        return best

    def rows(self) -> list[tuple[str, str, str]]:
        """(kind, number, what it is) of each kind."""
        found, limits = self.findings, self.findings.limits
        number = int(found.far.mislabelled.sum())
        return [
            ("mislabelled", f"{number:,}", f"cosine with the own centre below {limits.between:.3f}, with another at "
             f"least {limits.near:.3f}"),
            ("outliers", f"{len(found.outliers):,}", f"below {limits.far:.3f}, and near no other centre"),
            ("merge", f"{len(found.merges.pairs):,}", "pairs of classes whose estimated cosine is at least "
             f"{limits.class_pair:.3f}"),
            ("split", f"{len(found.splits):,}", f"classes of two parts whose estimated cosine is below "
             f"{limits.class_pair:.3f}"),
            ("copies", f"{len(found.copies):,}", f"pairs of images in two classes, cosine at least {limits.copy:.3f} "
             "or almost equal perceptual hashes"),
            ("leaks", f"{len(found.leaks):,}", "pairs of an image and one of a verification set, by the same"),
            ("known", f"{len(found.known):,}", "identities of verification sets, or images of pairs, that are a class "
             "as well"),
        ]  # fmt: skip

    def table(self) -> str:
        """For the terminal."""
        rows = self.rows()
        width = max(len(number) for _, number, _ in rows)
        lines = [f"{name:12} {number:>{width}}  {text}" for name, number, text in rows]
        count = f"{len(self.labels):,} images of {self.dataset.num_classes:,} classes"
        head = f"{self.dataset.source.place}: {count}, by {self.model}"
        return "\n".join([head, *lines, *self.warnings(), *self.notes])

    def warnings(self) -> list[str]:
        """Lines about doubtful findings."""
        lines = []
        if self.findings.blurred:
            lines.append(
                "own and other centres are hardly told apart, by many wrong labels or a model that has not learned "
                "enough: look at the page before anything is removed"
            )
        if not self.findings.complete:
            lines.append(
                "so many images are alike that not all of them were compared: there may be more copies and leaks"
            )
        return lines

    def plain(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        found, far = self.findings, self.findings.far
        return {
            "source": self.dataset.source.place, "images": len(self.labels), "classes": self.dataset.num_classes,
            "model": self.model, "limits": {name: round(value, 6) for name, value in vars(found.limits).items()},
            "noise": round(found.means.noise, 4), "warnings": self.warnings(), "notes": list(self.notes),
            "mislabelled": [
                {**self._image(int(far.index[i])), "cosine": _round(far.own[i]), "nearest": int(far.nearest[i]),
                 "nearest_name": self.class_text(int(far.nearest[i])), "nearest_cosine": _round(far.cosine[i])}
                for i in np.flatnonzero(far.mislabelled)
            ],
            "outliers": [{**self._image(int(i)), "cosine": _round(found.own[i])} for i in found.outliers],
            "merge": [
                {"labels": [int(a), int(b)], "names": [self.class_text(int(a)), self.class_text(int(b))],
                 "cosine": _round(cosine)} for (a, b), cosine in zip(found.merges.pairs, found.merges.cosines)
            ],
            "split": [
                {"label": one.label, "name": self.class_text(one.label), "cosine": _round(one.cosine),
                 "parts": [part.tolist() for part in one.parts]} for one in found.splits
            ],
            "copies": [{**self._image(one.index), "other": self._image(one.other), **_nearness(one)}
                       for one in found.copies],
            "leaks": [{**self._image(one.index), "set": one.set_name, "image": one.other, **_nearness(one)}
                      for one in found.leaks],
            "known": [
                {"set": one.set_name, "images": one.images.tolist(), "label": one.label,
                 "name": self.class_text(one.label), "cosine": _round(one.cosine)} for one in found.known
            ],
            "kinds": dict(KINDS),
        }  # fmt: skip

    def _image(self, index: int) -> dict[str, Any]:
        return {"index": index, "name": self.dataset.source.name(index), "label": int(self.labels[index])}


def _nearness(pair: Pair) -> dict[str, Any]:
    return {"cosine": None if pair.cosine is None else _round(pair.cosine), "bits": pair.bits}


def _round(value: Any) -> float:
    return round(float(value), 6)
