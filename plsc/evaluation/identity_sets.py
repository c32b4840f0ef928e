"""Evaluation sets with an identity for each image: a folder with a sub-folder per identity, or a list of files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np

from plsc.errors import DataError
from plsc.evaluation.bin_file import PairSet
from plsc.evaluation.folders import find_identities
from plsc.evaluation.metric import DISTRACTOR, IDENTITIES, PAIRS
from plsc.evaluation.pair_sets import FOLDER_PAIRS, FOLDER_SEED, ImageFiles, load_pairs, printable, read_lines
from plsc.evaluation.pairs import choose_pairs, max_pairs
from plsc.evaluation.verification import FOLDS


@dataclass(frozen=True)
class IdentitySet:
    """M images, those of an identity together, distractors last.

    images: their bytes. identities: int64 [M], from 0 in the order of the images; DISTRACTOR (-1) for distractors.
    pair_images: int64 [2P], indices of images; pair i is entries 2i and 2i + 1. issame: bool [P]. Both are None without
    pairs.
    """

    name: str
    images: ImageFiles
    identities: np.ndarray
    pair_images: np.ndarray | None = None
    issame: np.ndarray | None = None

    def as_pairs(self) -> PairSet:
        """The pairs as a PairSet. Raises DataError if there are none."""
        if self.pair_images is None or self.issame is None:
            raise DataError(f"{self.name}: {too_few(self)}")
        return PairSet(self.name, self.images.select(self.pair_images), self.issame)


AnySet = Union[PairSet, IdentitySet]


def load_set(path: str | os.PathLike[str], name: str, kinds: Collection[str]) -> AnySet:
    """Load a set for ``kinds``: "pairs", "identities" or both. A set of pairs has no identities.

    Raises DataError for a set that cannot be read, and for one without pairs if only pairs are needed.
    """
    path, is_list = Path(path), is_identity_list(path)
    if not is_list and (IDENTITIES not in kinds or not path.is_dir()):
        return load_pairs(path, name)
    found = load_identity_list(path, name) if is_list else load_identity_folder(path, name)
    if PAIRS in kinds:
        found = _with_pairs(found)
    return found if IDENTITIES in kinds else found.as_pairs()


def load_identity_folder(path: str | os.PathLike[str], name: str) -> IdentitySet:
    """All images of a folder with a sub-folder per identity, without pairs. Raises DataError, see find_identities."""
    found = find_identities(path)
    identities = np.repeat(np.arange(len(found.sizes)), found.sizes)
    return IdentitySet(name, ImageFiles(found.paths, [name] * len(found.paths)), identities)


def is_identity_list(path: str | os.PathLike[str]) -> bool:
    """True for a .txt whose first non-blank line has two fields; a list of pairs has three."""
    if Path(path).suffix != ".txt" or not os.path.isfile(path):
        return False
    first = next((line for line in read_lines(path) if line.strip()), "")
    return len(first.rstrip("\r\n").split("\t")) == 2


def load_identity_list(path: str | os.PathLike[str], name: str) -> IdentitySet:
    """Read a list with one `path<TAB>identity` per line; paths are relative to its directory.

    An identity is any text; -1 is a distractor. UTF-8; blank lines are ignored. Raises DataError that names the first
    bad line and the number of bad lines.
    """
    home, rows, bad = Path(path).parent, [], []
    numbers: dict[str, int] = {str(DISTRACTOR): DISTRACTOR}
    for line_number, line in enumerate(read_lines(path), 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        location, fields = f"{os.path.basename(path)}:{line_number}", line.split("\t")
        if len(fields) != 2 or not fields[0] or not fields[1].strip():
            bad.append(f"{location}: {printable(line)}; expected path<TAB>identity")
            continue
        file = os.path.join(home, fields[0])
        if not os.path.isfile(file):
            bad.append(f"{location}: image {printable(file)} does not exist")
        rows.append((numbers.setdefault(fields[1].strip(), len(numbers) - 1), file, location))
    if bad or not rows:
        problem = f"{len(bad)} problem(s), the first: {bad[0]}" if bad else "is empty"
        raise DataError(f"list of identities {os.fspath(path)}: {problem}")
    rows.sort(key=lambda row: (row[0] == DISTRACTOR, row[0]))  # stable
    identities, files, locations = zip(*rows)
    return IdentitySet(name, ImageFiles(files, locations), np.array(identities, np.int64))


def too_few(found: IdentitySet) -> str:
    """The reason why a set has no pairs."""
    known = found.identities[found.identities != DISTRACTOR]
    return (
        f"{len(known)} images of {len(np.unique(known))} identities; at least {FOLDS} pairs of one identity and "
        f"{FOLDS} of two are needed"
    )


def _with_pairs(found: IdentitySet) -> IdentitySet:
    """Add FOLDER_PAIRS pairs, or as many as possible, drawn as those of a folder."""
    sizes: Sequence[int] = np.bincount(found.identities[found.identities != DISTRACTOR]).tolist()
    number = min(FOLDER_PAIRS, max_pairs(sizes, FOLDS))
    if not number:
        return found
    pair_images, issame = choose_pairs(sizes, number, FOLDS, FOLDER_SEED)
    return IdentitySet(found.name, found.images, found.identities, pair_images.reshape(-1), issame)
