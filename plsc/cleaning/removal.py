"""The images that a cleaned list leaves out, and the list."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from plsc.cleaning.find import Findings, Pair
from plsc.data.sources import Source
from plsc.errors import DataError
from plsc.evaluation.output_files import require_writable, whole_file
from plsc.files.atomic import rename_new

# {kind: what it is}, in this order: an image is removed for the first that holds
KINDS = {
    "leak": "a verification set has the image as well",
    "mislabelled": "far from its centre, and near that of another class",
    "copy": "another class has the image as well, nearer to its centre",
    "outlier": "far from its centre, and from all others",
    "known": "of a class that a verification set has as an identity",
}
DEFAULT = ("leak", "mislabelled", "copy")


@dataclass(frozen=True)
class Images:
    """The images that a list names. source; labels: int [n]; root: the directory to which its paths are relative."""

    source: Source
    labels: np.ndarray
    root: str

    def line(self, index: int) -> str:
        """The line of an image."""
        file = self.source.file(index)
        assert file is not None  # require_new_list
        return f"{os.path.relpath(os.fsdecode(file), self.root)}\t{self.labels[index]}\n"


def reasons(findings: Findings, labels: np.ndarray, kinds: Collection[str]) -> dict[int, tuple[str, str]]:
    """{index: (kind, why)} of the images to remove, by ``kinds``, in the order of KINDS."""
    found: dict[int, tuple[str, str]] = {}
    far = findings.far
    listed = {
        "leak": [(one.index, f"{one.set_name}, image {one.other}: {nearness(one)}") for one in findings.leaks],
        "mislabelled": [
            (int(far.index[i]), f"cosine {far.own[i]:.3f} with its centre, {far.cosine[i]:.3f} with that of class "
             f"{far.nearest[i]}") for i in np.flatnonzero(far.mislabelled)
        ],
        "copy": [(one.index, f"image {one.other} of class {labels[one.other]}: {nearness(one)}")
                 for one in findings.copies],
        "outlier": [(int(i), f"cosine {findings.own[i]:.3f} with its centre") for i in findings.outliers],
        "known": [
            (int(i), f"class {one.label}, in {one.set_name} image {one.images[0]}: estimated cosine {one.cosine:.3f}")
            for one in findings.known for i in np.flatnonzero(labels == one.label)
        ],
    }  # fmt: skip
    for kind in KINDS:
        for index, why in listed[kind] if kind in kinds else []:
            found.setdefault(index, (kind, why))
    return found


def nearness(pair: Pair) -> str:
    """How near the images of a pair are, by what was found."""
    parts = [] if pair.cosine is None else [f"cosine {pair.cosine:.4f}"]
    return ", ".join([*parts, *([] if pair.bits is None else [f"{pair.bits} of 128 bits differ"])])


def removed_file(path: str) -> str:
    """The file beside a cleaned list that says what was removed."""
    return f"{path}.removed.tsv"


def require_new_list(path: str, source: Source) -> None:
    """Raise DataError where no cleaned list of ``source`` can be written at ``path``."""
    if source.file(0) is None:
        raise DataError(
            f"--list {path}: images of {source.place} are no files, which a list could name; use --json, which has "
            "their indices"
        )
    for file in (path, removed_file(path)):
        require_writable(file, "--list")
        if os.path.lexists(file):
            raise DataError(f"--list {file}: exists, and is not overwritten; give another name, or remove it")


def write_list(path: str, images: Images, removed: dict[int, tuple[str, str]]) -> str:
    """Write the list of the other images, and beside it path, label, kind and reason of each removed one.

    Labels are kept, so a class may be without images. Each file is written as a whole, and none is replaced. Returns a
    line for the terminal. Raises DataError.
    """
    kept = "".join(images.line(i) for i in range(len(images.labels)) if i not in removed)
    gone = "".join(images.line(i).rstrip("\n") + f"\t{kind}\t{why}\n" for i, (kind, why) in sorted(removed.items()))
    for file, text in ((removed_file(path), gone), (path, kept)):
        with whole_file(f"{file}.new", "--list") as opened:
            opened.write(text.encode("utf-8", "surrogateescape"))
        try:
            rename_new(f"{file}.new", file)
        except OSError as error:
            os.unlink(f"{file}.new")
            raise DataError(f"--list {file}: cannot be written: {error.strerror or error}") from error
    counts = [(sum(one == kind for one, _ in removed.values()), kind) for kind in KINDS]
    parts = ", ".join(f"{count:,} {kind}" for count, kind in counts if count) or "nothing"
    left = len(images.labels) - len(removed)
    return f"{path}: {left:,} of {len(images.labels):,} images, without {parts}; why: {removed_file(path)}"
