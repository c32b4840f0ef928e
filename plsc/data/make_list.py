"""Writes the image files of a data source as lists: all, or some held out for verification."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np

from plsc.data.class_table import table_of, write_class_table
from plsc.data.containers.files import shown
from plsc.data.label_list import printable, read_label_list
from plsc.data.sources import Source
from plsc.errors import DataError
from plsc.files.atomic import whole_file


@dataclass(frozen=True)
class Split:
    """What is held out. min_images: classes with fewer are in no list. identities: how many classes, or a fraction
    below 1. images: how many of each class that has more. One of both is 0."""

    min_images: int = 1
    identities: float = 0
    images: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """A list. path: the file. names: the table of its classes."""

    path: str
    images: int
    classes: int
    names: str


@dataclass(frozen=True)
class Lists:
    """The result. left_out: classes with fewer than min_images, and their images; small: classes of which no image is
    held out because they have too few."""

    train: Written
    held_out: Written | None
    left_out: tuple[int, int]
    small: int


def held_out_path(output: str) -> str:
    """The path of the list of what is held out: label.txt has label.held_out.txt."""
    stem, ending = os.path.splitext(output)
    return f"{stem}.held_out{ending}"


def make_lists(source: Source, output: str, split: Split) -> Lists:
    """Write the lists of a source that was checked, with paths relative to the directory of ``output``.

    Labels are numbered anew without gaps, in the order of the source's. Held-out images have the labels of the training
    images; held-out classes are numbered by themselves. What is held out depends on the seed and, for each class or
    image, on its own name, so most of it stays when others are added. Raises DataError for a source whose images are no
    files, for files that are there already, and if the lists cannot be written.
    """
    wanted = [output] if not (split.identities or split.images) else [output, held_out_path(output)]
    for path in (one for name in wanted for one in (name, table_of(name))):
        if os.path.lexists(path):
            raise DataError(f"--output {shown(path)}: is there already; give another name, or remove it")
    found = _Found(source)
    counts = np.bincount(found.labels)
    kept = counts >= max(split.min_images, 1)
    tested_classes, tested = found.hold_out(kept, counts, split)
    trained = kept & ~tested_classes
    found.require_enough(trained, tested, split)
    try:
        held_out = None
        if len(wanted) > 1:
            held_out = _write(found, wanted[1], tested, tested_classes if split.identities else trained)
        train = _write(found, output, trained[found.labels] & ~tested, trained)
    except OSError as error:
        raise DataError(f"--output {shown(output)}: cannot be written: {error.strerror or error}") from error
    left_out = (counts > 0) & ~kept
    small = trained & (counts <= split.images)
    return Lists(train, held_out, (int(left_out.sum()), int(counts[left_out].sum())), int(small.sum()))


class _Found:
    """The files and labels of a source."""

    def __init__(self, source: Source) -> None:
        self.place, self.names = source.place, source.class_names
        self.files: list[bytes] = []
        for index in range(len(source)):
            file = source.file(index)
            if file is None:
                raise DataError(
                    f"{source.place}: its images are no files, which a list could name; plsc pack --to list writes "
                    "them as files, with a list"
                )
            self.files.append(os.path.abspath(file))
        known = source.known_labels()
        self.labels = np.array([source.read(i)[1] for i in range(len(source))]) if known is None else np.asarray(known)

    def class_name(self, label: int) -> str:
        return str(label) if self.names is None or label >= len(self.names) else self.names[label]

    def hold_out(self, kept: np.ndarray, counts: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """bool [classes] and bool [images] that are held out. kept: bool [classes] that may be used; counts: of all."""
        classes, images = np.zeros(len(counts), bool), np.zeros(len(self.labels), bool)
        labels = np.flatnonzero(kept)
        if split.identities:
            number = round(split.identities * len(labels)) if split.identities < 1 else int(split.identities)
            names = map(self.class_name, labels.tolist())
            keys = [_key(split.seed, name.encode("utf-8", "surrogateescape")) for name in names]
            classes[labels[np.argsort(keys, kind="stable")[:number]]] = True
            images = classes[self.labels]
        elif split.images:
            keys = [_key(split.seed, self._own_name(index)) for index in range(len(self.files))]
            order = np.lexsort((np.array(keys), self.labels))
            ordered = self.labels[order]
            place = np.arange(len(order)) - np.searchsorted(ordered, ordered)  # in its class
            images[order[place < split.images]] = True
            images &= (kept & (counts > split.images))[self.labels]
        return classes, images

    def require_enough(self, trained: np.ndarray, tested: np.ndarray, split: Split) -> None:
        """Raise DataError for fewer than two classes to train on, and if nothing is held out that should be."""
        if trained.sum() < 2:
            raise DataError(
                f"{self.place}: {int(trained.sum())} classes would be left for training, two are needed; lower "
                "--min-images or --hold-out-identities"
            )
        if (split.identities or split.images) and not tested.any():
            raise DataError(
                f"{self.place}: nothing would be held out; raise --hold-out-identities, or lower --hold-out-images"
            )

    def _own_name(self, index: int) -> bytes:
        """The name of an image with that of its folder: the same wherever the data are."""
        return b"/".join(self.files[index].split(b"/")[-2:])


def _key(seed: int, name: bytes) -> int:
    """A pseudo-random number of a name, int64."""
    digest = hashlib.blake2b(name, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") >> 1


def _write(found: _Found, path: str, chosen: np.ndarray, classes: np.ndarray) -> Written:
    """Write the list of the images ``chosen``, bool [images], and the table of ``classes``, bool [classes]: labels are
    their numbers. Raises DataError, and OSError."""
    numbers, home = np.cumsum(classes) - 1, os.fsencode(os.path.dirname(os.path.abspath(path)))
    labels = numbers[found.labels[chosen]]
    names = [found.class_name(label) for label in np.flatnonzero(classes).tolist()]
    write_class_table(table_of(path), names, np.bincount(labels, minlength=len(names)).tolist())
    with whole_file(path) as file:
        for index, label in zip(np.flatnonzero(chosen).tolist(), labels.tolist()):
            file.write(b"%s\t%d\n" % (_relative(found.files[index], home), label))
    again = read_label_list(path, None)
    if again.problems.any() or not np.array_equal(again.labels, labels):
        raise DataError(f"{shown(path)}: is not what was written; the disk may be damaged: remove it")
    return Written(path, len(labels), len(names), table_of(path))


def _relative(file: bytes, home: bytes) -> bytes:
    """A path relative to the directory of the list. Raises DataError if it cannot be in a list."""
    inside = file.startswith(home + b"/")
    path = file[len(home) + 1 :] if inside else os.path.relpath(file, home)
    if any(mark in path for mark in b"\t\r\n") or path != path.strip(b" \v\f"):
        raise DataError(
            f"image {printable(path)}: a tab, a line end, or a space at an end cannot be in a list; rename it"
        )
    return path
