"""Images that are there twice: by equal digests, and by perceptual hashes that differ in few bits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from plsc.data.checking.equal_keys import crowded, equal_pairs

NEAR_BITS = 3  # of 128 in which near duplicates may differ
_BANDS = 4  # of 32 bits: two hashes that differ in 3 bits or fewer are equal in one of the four
MOST_LISTED = 1_000  # groups and pairs that are kept; all are counted
_ONES = np.array([bin(value).count("1") for value in range(256)], np.uint8)


@dataclass(frozen=True)
class Copies:
    """Groups of images with the same bytes.

    groups: the first MOST_LISTED, each the indices of its images, ascending. num_groups; extra: images beyond the first
    of each group; across: groups whose images have different labels.
    """

    groups: list[np.ndarray]
    num_groups: int
    extra: int
    across: int
    extra_images: np.ndarray  # bool [n]


def same_bytes(digests: np.ndarray, labels: np.ndarray, known: np.ndarray) -> Copies:
    """digests: uint64 [n]; labels: int [n]; known: bool [n], the images that have a digest."""
    indices = np.flatnonzero(known)
    order = indices[np.argsort(digests[indices], kind="stable")]
    value = digests[order]
    starts = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]])) if len(value) else np.empty(0, int)
    sizes = np.diff(np.append(starts, len(value)))
    extra = np.zeros(len(digests), bool)
    extra[order] = True
    extra[order[starts]] = False
    of_several = sizes > 1
    across = 0
    if len(starts):
        label = labels[order]
        different = np.minimum.reduceat(label, starts) != np.maximum.reduceat(label, starts)
        across = int(np.count_nonzero(different & of_several))
    several = np.flatnonzero(of_several)
    firsts = order[starts[several]]
    listed = several[np.argsort(firsts)][:MOST_LISTED]
    groups = [order[starts[group] : starts[group] + sizes[group]] for group in listed]
    return Copies(groups, len(several), int(extra.sum()), across, extra)


@dataclass
class NearCopies:
    """Pairs of images that look the same. pairs: (index, index, bits that differ), the first MOST_LISTED. across: those
    with different labels. complete: False where so many hashes agree in a quarter that not all pairs were compared."""

    pairs: list[tuple[int, int, int]] = field(default_factory=list)
    num_pairs: int = 0
    across: int = 0
    complete: bool = True


def look_alike(
    hashes: np.ndarray, labels: np.ndarray, known: np.ndarray, only_across: bool = False, most: int | None = None
) -> NearCopies:
    """All pairs whose hashes differ in NEAR_BITS bits at most. hashes: uint64 [n, 2]; known: bool [n], who takes part.

    only_across: only pairs with different labels. most: how many of them are listed, MOST_LISTED by default.
    Time and memory grow with n: within each quarter of the hashes only the neighbours in sorted order are compared.
    """
    found = NearCopies()
    indices = np.flatnonzero(known)
    hashes = hashes[indices]
    quarters = hashes.view(np.uint32).reshape(len(hashes), _BANDS)
    for band in range(_BANDS):
        found.complete &= not crowded(quarters[:, band])
        for one, other in equal_pairs(quarters[:, band]):
            if only_across:
                differ = labels[indices[one]] != labels[indices[other]]
                one, other = one[differ], other[differ]
            before = (quarters[one, :band] == quarters[other, :band]).any(axis=1)  # found there already
            one, other = one[~before], other[~before]
            bits = _ONES[(hashes[one] ^ hashes[other]).view(np.uint8).reshape(len(one), 16)].sum(axis=1, dtype=int)
            near = bits <= NEAR_BITS
            pair = np.sort(np.stack([indices[one[near]], indices[other[near]]], axis=1), axis=1)
            found.num_pairs += len(pair)
            found.across += int(np.count_nonzero(labels[pair[:, 0]] != labels[pair[:, 1]]))
            room = (MOST_LISTED if most is None else most) - len(found.pairs)
            found.pairs += [(int(a), int(b), int(c)) for (a, b), c in zip(pair[:room], bits[near][:room])]
    found.pairs.sort()
    return found
