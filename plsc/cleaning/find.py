"""All that is found in training data by embeddings, with limits that are derived from the data or given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from plsc.cleaning.classes import ClassMeans, Meetings, class_means, halfway, meetings, unit
from plsc.cleaning.labels import FarImages, LabelLimits, far_images, label_limits, nearest_other, own_cosines
from plsc.cleaning.similar import Stacked, similar_limit, similar_pairs
from plsc.cleaning.splits import Split, find_splits
from plsc.data.checking.duplicates import look_alike

_TEST = -1  # the group of all verification images: not compared with each other
_MOST_PAIRS = 10_000_000


@dataclass(frozen=True)
class Hashes:
    """values: perceptual hashes, uint64 [n, 2] (plsc.data.checking.look). known: bool [n], which images have one."""

    values: np.ndarray
    known: np.ndarray

    @classmethod
    def none(cls, count: int) -> Hashes:
        return cls(np.zeros((count, 2), np.uint64), np.zeros(count, bool))


@dataclass(frozen=True)
class Training:
    """embeddings: [n, E], may be memory-mapped. labels: int64 [n]. centres: unit [C, E], None for the class means."""

    embeddings: np.ndarray
    labels: np.ndarray
    num_classes: int
    centres: np.ndarray | None
    hashes: Hashes


@dataclass(frozen=True)
class VerificationImages:
    """A verification set. identities: int [m], negative where not known."""

    name: str
    embeddings: np.ndarray
    identities: np.ndarray
    hashes: Hashes


@dataclass(frozen=True)
class Limits:
    """Cosines that are given; None: by the data. far, near: see LabelLimits; class_pair: of two classes of one
    identity, estimated; copy: of two images of which one is a copy."""

    far: float | None = None
    near: float | None = None
    class_pair: float | None = None
    copy: float | None = None


@dataclass(frozen=True)
class UsedLimits:
    """The same as they were used, and LabelLimits.between."""

    far: float
    near: float
    between: float
    class_pair: float
    copy: float


@dataclass(frozen=True)
class Pair:
    """Two images that are almost the same.

    index: of the training image that is farther from its centre; other: of the other one. cosine: of the embeddings;
    bits: those that differ in the perceptual hashes; None where these did not find the pair. set_name: "" where the
    other one is a training image, too, else the verification set.
    """

    index: int
    other: int
    cosine: float | None
    bits: int | None
    set_name: str = ""


@dataclass(frozen=True)
class KnownIdentity:
    """An identity of a verification set that is also a class. images: in the set."""

    set_name: str
    images: np.ndarray
    label: int
    cosine: float


@dataclass
class Findings:
    """What was found. own: cosine of each image with its centre. outliers: images like no class, without those of
    classes that fall apart. copies: across classes; leaks: in verification sets. limits: the ones used."""

    limits: UsedLimits
    own: np.ndarray
    means: ClassMeans
    far: FarImages
    merges: Meetings
    splits: list[Split]
    outliers: np.ndarray
    copies: list[Pair] = field(default_factory=list)
    leaks: list[Pair] = field(default_factory=list)
    known: list[KnownIdentity] = field(default_factory=list)
    complete: bool = True  # whether all images that may be copies were compared

    @property
    def blurred(self) -> bool:
        """Whether own centres are hardly told from others: the findings are then doubtful."""
        return self.limits.near <= self.limits.far


def find(training: Training, sets: Sequence[VerificationImages], given: Limits = Limits()) -> Findings:
    """Search for all kinds of errors. Memory: three arrays [C, E] of float32, 300 bytes an image, and blocks."""
    embeddings, labels = training.embeddings, training.labels
    means = class_means(embeddings, labels, training.num_classes)
    merges = meetings(means, given.class_pair)
    class_pair = halfway(merges.nearest) if given.class_pair is None else given.class_pair
    centres = means.directions if training.centres is None else training.centres
    own = own_cosines(embeddings, labels, centres)
    derived = label_limits(embeddings, labels, own, centres)
    limits = LabelLimits(
        derived.far if given.far is None else given.far, derived.near if given.near is None else given.near
    )
    far = far_images(embeddings, labels, own, centres, limits)
    chosen = np.ones(len(labels), bool)
    chosen[far.index[far.mislabelled]] = False
    splits = find_splits(embeddings, labels, chosen, means, class_pair)
    outliers = far.index[~far.mislabelled]
    outliers = outliers[~np.isin(labels[outliers], [one.label for one in splits])]
    copy = similar_limit(embeddings, labels) if given.copy is None else given.copy
    found = Findings(
        UsedLimits(limits.far, limits.near, limits.between, class_pair, copy), own, means, far, merges, splits, outliers
    )
    _find_copies(found, training, sets, copy)
    for one in sets:
        found.known += known_identities(one, means, class_pair)
    return found


def _find_copies(found: Findings, training: Training, sets: Sequence[VerificationImages], limit: float) -> None:
    count = len(training.labels)
    groups = np.concatenate([training.labels, np.full(sum(len(one.embeddings) for one in sets), _TEST)])
    similar = similar_pairs(Stacked([training.embeddings, *(one.embeddings for one in sets)]), groups, limit)
    cosines = {(int(a), int(b)): float(c) for (a, b), c in zip(similar.pairs, similar.cosines)}
    hashes = [training.hashes, *(one.hashes for one in sets)]
    alike = look_alike(
        np.concatenate([one.values for one in hashes]), groups, np.concatenate([one.known for one in hashes]),
        only_across=True, most=_MOST_PAIRS,
    )  # fmt: skip
    bits = {(one, other): number for one, other, number in alike.pairs}
    found.complete = similar.complete and alike.complete and alike.num_pairs <= _MOST_PAIRS
    starts = count + np.cumsum([0, *(len(one.embeddings) for one in sets)])
    for pair in sorted({*cosines, *bits}):
        index, other = pair
        if other >= count:
            number = int(np.searchsorted(starts, other, side="right")) - 1
            place, name = other - int(starts[number]), sets[number].name
            found.leaks.append(Pair(index, place, cosines.get(pair), bits.get(pair), name))
            continue
        if found.own[other] < found.own[index]:
            index, other = other, index
        found.copies.append(Pair(index, other, cosines.get(pair), bits.get(pair)))


def known_identities(test: VerificationImages, means: ClassMeans, limit: float) -> list[KnownIdentity]:
    """The identities of a verification set whose estimated cosine with a class is at least ``limit``. An image whose
    identity is not known is one of its own."""
    count = len(test.embeddings)
    if not count:
        return []
    group, single = test.identities, test.identities < 0
    group = np.where(single, group.max() + 1 + np.cumsum(single), group)
    _, number = np.unique(group, return_inverse=True)
    sizes = np.bincount(number)
    sums = np.zeros((len(sizes), test.embeddings.shape[1]), np.float32)
    np.add.at(sums, number, unit(test.embeddings))
    present = np.flatnonzero(means.counts)
    nearest, cosine = nearest_other(unit(sums), np.full(len(sizes), -1), means.corrected(present))
    cosine = np.minimum(cosine * means.attenuation(sizes), 1)
    images = np.split(np.argsort(number, kind="stable"), np.cumsum(sizes)[:-1])
    return [KnownIdentity(test.name, images[one], int(present[nearest[one]]), float(cosine[one]))
            for one in np.flatnonzero(cosine >= limit)]  # fmt: skip
