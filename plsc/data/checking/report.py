"""What a check has found: as numbers for JSON, and as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.data.checking.duplicates import Copies, NearCopies, look_alike, same_bytes
from plsc.data.checking.look import KINDS, REFUSE, WRONG_SIZE
from plsc.data.checking.scan import Problem, Scan, scan
from plsc.data.datasets import SourceDataset

MOST_CLASSES = 1_000  # classes that are listed; all are counted


@dataclass(frozen=True)
class Classes:
    """Classes with the same number of images. count: of all; labels: the first MOST_CLASSES."""

    count: int
    labels: list[int]

    @classmethod
    def of(cls, chosen: np.ndarray) -> Classes:
        """chosen: bool [num_classes]."""
        labels = np.flatnonzero(chosen)
        return cls(len(labels), labels[:MOST_CLASSES].tolist())


@dataclass(frozen=True)
class Report:
    """What is in the data. counts: images that training cannot use, by the kinds of plsc.data.checking.look; problems:
    the first of them. copies, near: images that are there twice. empty, single: classes without and with one image.
    """

    dataset: SourceDataset
    counts: dict[str, int]
    problems: list[Problem]
    copies: Copies
    near: NearCopies
    empty: Classes
    single: Classes

    @property
    def stops(self) -> bool:
        """Whether training would stop. Images of another size do not stop it where ``data.resize`` resizes them."""
        harmless = () if self.dataset.preparation.resize == REFUSE else (WRONG_SIZE,)
        return any(count for kind, count in self.counts.items() if kind not in harmless)

    def class_text(self, label: int) -> str:
        """A label with the name of its class, where there is one."""
        names = self.dataset.class_names
        return f"{label} ({names[label]})" if names is not None and 0 <= label < len(names) else str(label)

    def plain(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        name = self.dataset.source.name

        def classes(found: Classes) -> dict[str, Any]:
            listed = [{"label": label, "name": _name(self.dataset.class_names, label)} for label in found.labels]
            return {"count": found.count, "listed": listed}

        return {
            "source": self.dataset.source.place,
            "images": len(self.dataset),
            "classes": self.dataset.num_classes,
            "stops_training": self.stops,
            "resize": self.dataset.preparation.resize,
            "unusable": {kind: self.counts.get(kind, 0) for kind in KINDS},
            "unusable_listed": [{"index": one.index, "kind": one.kind, "text": one.text} for one in self.problems],
            "duplicates": {
                "groups": self.copies.num_groups, "extra_images": self.copies.extra,
                "groups_with_several_labels": self.copies.across,
                "listed": [[{"index": int(index), "name": name(int(index))} for index in group[:20]]
                           for group in self.copies.groups],
            },
            "near_duplicates": {
                "pairs": self.near.num_pairs, "pairs_with_two_labels": self.near.across,
                "all_compared": self.near.complete,
                "listed": [{"indices": [one, other], "names": [name(one), name(other)], "bits": bits}
                           for one, other, bits in self.near.pairs],
            },
            "classes_without_images": classes(self.empty),
            "classes_with_one_image": classes(self.single),
        }  # fmt: skip

    def rows(self) -> list[tuple[str, str, str]]:
        """(what, how many, an example or a remark) of each kind."""
        rows = [("images", f"{len(self.dataset):,}", self.dataset.source.place),
                ("classes", f"{self.dataset.num_classes:,}", "")]  # fmt: skip
        for kind in KINDS:
            first = next((one.text for one in self.problems if one.kind == kind), "")
            rows.append((kind, f"{self.counts.get(kind, 0):,}", first))
        copies, near, first_pair = self.copies, self.near, self.near.pairs[:1]
        rows.append(("same bytes", f"{copies.extra:,}", _copies_text(copies, self.dataset.source.name)))
        rest = "" if near.complete else "; not all were compared: too many look alike"
        across = f"{near.across:,} with two labels; " if near.num_pairs else ""
        pair = "".join(f"{self.dataset.source.name(a)} and {self.dataset.source.name(b)}" for a, b, _ in first_pair)
        rows.append(("near duplicates", f"{near.num_pairs:,}", across + pair + rest))
        for what, found in (("classes without images", self.empty), ("classes with one image", self.single)):
            shown = ", ".join(map(self.class_text, found.labels[:5])) + (", ..." if found.count > 5 else "")
            rows.append((what, f"{found.count:,}", shown))
        return rows

    def table(self) -> str:
        """The rows, in columns."""
        rows = self.rows()
        wide, numbers = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
        lines = [f"{what:{wide}}  {number:>{numbers}}  {remark}".rstrip() for what, number, remark in rows]
        end = "training would stop" if self.stops else "training can use all images"
        return "\n".join([*lines, end])


def check(dataset: SourceDataset, processes: int, log: Callable[[str], None] = lambda line: None) -> Report:
    """Look at every image once, by so many processes; 0: by this one. Raises DataError where a process ends."""
    seen: Scan = scan(dataset, processes, log)
    copies = same_bytes(seen.digests, seen.labels, seen.has > 0)
    near = look_alike(seen.perceptual, seen.labels, (seen.has == 2) & ~copies.extra_images)
    counts = np.bincount(seen.labels[seen.labels >= 0], minlength=dataset.num_classes)
    return Report(
        dataset, dict(seen.counts), seen.problems, copies, near, Classes.of(counts == 0), Classes.of(counts == 1)
    )


def _name(names: Sequence[str] | None, label: int) -> str | None:
    return names[label] if names is not None and label < len(names) else None


def _copies_text(copies: Copies, name: Callable[[int], str]) -> str:
    if not copies.groups:
        return ""
    one, other = (name(int(index)) for index in copies.groups[0][:2])
    return f"{copies.across:,} of {copies.num_groups:,} groups with several labels; {one} and {other}"
