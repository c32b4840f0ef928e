"""Records of training data, kept in checkpoints, that detect other data and describe the difference.

Each line has a 64-bit hash of its path and one of path and label. NumPy computes them for blocks of lines, in less than
half the time of reading the list. The hashes are not cryptographic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from plsc.data.label_list import LabelList

SAMPLE = 256  # images whose labels are kept: those with the smallest hashes of their paths, in any order
_BLOCK = 1 << 16  # lines
_WORD = 8  # bytes


@dataclass(frozen=True)
class Difference:
    """How other data differ, for a message. ``relabelled``: the same images have other labels."""

    text: str
    relabelled: bool = False


class Labels(Protocol):
    """The labels of all images, int [n]: an array, or what makes parts of one."""

    def __getitem__(self, which: slice, /) -> np.ndarray: ...


class LabelIndex(Protocol):
    """The labels, and a name or key, of all images, known without reading them."""

    @property
    def labels(self) -> Labels: ...

    @property
    def num_classes(self) -> int: ...

    def __len__(self) -> int: ...

    def block(self, which: slice) -> tuple[bytes, np.ndarray, np.ndarray]:
        """(bytes, starts, lengths): the positions of the names of consecutive images in these bytes."""
        ...


def list_record(labels: LabelList, count: int | None = None) -> dict[str, Any]:
    """The record of a list, or of its first ``count`` lines."""
    return {"kind": "list", **index_record(labels, count)}


def index_record(labels: LabelIndex, count: int | None = None) -> dict[str, Any]:
    """The record of data whose labels are known, or of the first ``count`` images, as plain JSON.

    images: number of images. num_classes. labels: number of distinct labels. lines: digest of paths and labels in
    order. paths: digest of the paths only. unordered: digest of paths and labels that ignores the order. sample: [hash
    of a path, label].
    """
    count = len(labels) if count is None else min(count, len(labels))
    lines, paths, unordered, sample = hashlib.sha256(), hashlib.sha256(), 0, _Sample()
    seen = np.zeros(0, bool)  # up to the largest label so far
    for first in range(0, count, _BLOCK):
        here = slice(first, min(first + _BLOCK, count))
        path_hash = hash_texts(*labels.block(here))
        label = labels.labels[here]
        line_hash = _mix(path_hash ^ _mix(label.astype(np.uint64) + np.uint64(1)))
        paths.update(path_hash.astype("<u8").tobytes())
        lines.update(line_hash.astype("<u8").tobytes())
        unordered = (unordered + int(line_hash.sum(dtype=np.uint64))) % 2**64
        sample.add(path_hash, label)
        seen = np.append(seen, np.zeros(max(0, int(label.max()) + 1 - len(seen)), bool))
        seen[label[label >= 0]] = True
    return {
        "images": count,
        "num_classes": labels.num_classes,
        "labels": int(np.count_nonzero(seen)),
        "lines": lines.hexdigest()[:32],
        "paths": paths.hexdigest()[:32],
        "unordered": f"{unordered:016x}",
        "sample": sample.pairs(),
    }


def difference(
    old: dict[str, Any], new: dict[str, Any], first_images: Callable[[int], dict[str, Any]] | None = None
) -> Difference | None:
    """How data of the record ``new`` differ from those of ``old``; None if their records are equal.

    A record has a kind and, if known, a type (the user's class), the number of images and a digest. index_record makes
    the record of data whose labels are known. first_images(count): the record of the first ``count`` images of the new
    data.
    """
    same_kind = old.get("kind") == new.get("kind")
    if "lines" in new and ("lines" in old or same_kind):  # names and labels are comparable between sources
        found = _between_lists(old, new, first_images)
        if same_kind or (found is not None and found.relabelled):
            return found
        return Difference(f"{_describe(new)} instead of {_describe(old)}, {found.text if found else 'of one content'}")
    if any(old.get(key) != new.get(key) for key in ("kind", "type", "images")):
        return Difference(f"{_describe(new)} instead of {_describe(old)}")
    return None if old.get("digest") == new.get("digest") else Difference(f"{_describe(new)} with other contents")


def _between_lists(old: dict, new: dict, first_images: Callable[[int], dict] | None) -> Difference | None:
    if old.get("lines") == new.get("lines"):
        return None
    old_count, new_count = old.get("images", 0), new["images"]
    if old.get("paths") == new["paths"]:
        return Difference(f"the same {new_count:,} images have other labels", relabelled=True)
    if old.get("unordered") == new["unordered"] and old_count == new_count:
        return Difference(f"the same {new_count:,} lines are in another order")
    if first_images is not None and new_count > old_count > 0:
        beginning = first_images(old_count)
        if beginning["lines"] == old.get("lines"):
            return Difference(f"a list of {new_count:,} lines instead of {old_count:,}, whose beginning is the same")
        if beginning["paths"] == old.get("paths"):
            text = f"a list of {new_count:,} lines instead of {old_count:,}, the first {old_count:,} with other labels"
            return Difference(text, relabelled=True)
    return _by_sample(old, new)


def moved_classes(old: Sequence[str], new: Sequence[str]) -> Difference | None:
    """Whether classes have other labels than before, by their names in the order of the labels."""
    before = {name: label for label, name in enumerate(old)}
    moved = [(name, label) for label, name in enumerate(new) if before.get(name, label) != label]
    if not moved:
        return None
    name, label = moved[0]
    both = sum(name in before for name in new)
    text = f"{len(moved):,} of {both:,} classes that are in both have other labels, such as {name!r:.80}: {label}"
    return Difference(f"{text} instead of {before[name]}", relabelled=True)


def _by_sample(old: dict, new: dict) -> Difference:
    """How the samples differ. Each holds all images of its list whose hash is below the largest hash in it."""
    before, after = _labels_by_path(old), _labels_by_path(new)
    limit = min(max(before, default=""), max(after, default=""))
    if len(before) < SAMPLE and len(after) < SAMPLE:  # each holds its whole list
        limit = "g"
    common = [path for path in before if path < limit and path in after]
    relabelled = sum(before[path] != after[path] for path in common)
    missing = sum(path < limit and path not in after for path in before)
    text = f"another list, of {new['images']:,} lines instead of {_separated(old.get('images'))}"
    if relabelled:
        return Difference(f"{text}: of {len(common)} images compared, {relabelled} have other labels", True)
    return Difference(f"{text}: of {len(common) + missing} images compared, {missing} are missing" if missing else text)


def _labels_by_path(record: dict) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for path, label in record.get("sample", []):
        found.setdefault(path, set()).add(label)
    return found


def _describe(record: dict) -> str:
    """A record as text."""
    kinds = {"list": "a list", "folder": "a folder", "synthetic": "synthetic data"}
    name = kinds.get(record.get("kind", ""), f"{record.get('kind')} {record.get('type', '')}".strip())
    count = record.get("images")
    return name if count is None else f"{name} of {_separated(count)} images"


def _separated(count: Any) -> str:
    """A count with thousands separators. It may be of a checkpoint that others wrote, so it may be anything."""
    return f"{count:,}" if isinstance(count, int) else str(count)


class _Sample:
    """The pairs (hash of a path, label) with the smallest hashes."""

    def __init__(self):
        self._hash, self._label = np.empty(0, np.uint64), np.empty(0, np.int64)
        self._limit = np.uint64(2**64 - 1)

    def add(self, path_hash: np.ndarray, label: np.ndarray) -> None:
        low = path_hash <= self._limit
        self._hash = np.concatenate([self._hash, path_hash[low]])
        self._label = np.concatenate([self._label, label[low].astype(np.int64)])
        if len(self._hash) > SAMPLE:
            self._cut()

    def _cut(self) -> None:
        order = np.lexsort((self._label, self._hash))
        value, label = self._hash[order], self._label[order]
        new = np.ones(len(value), bool)
        new[1:] = (value[1:] != value[:-1]) | (label[1:] != label[:-1])
        self._hash, self._label = value[new][:SAMPLE], label[new][:SAMPLE]
        if len(self._hash) == SAMPLE:
            self._limit = self._hash[-1]

    def pairs(self) -> list[list]:
        self._cut()
        return [[f"{value:016x}", label] for value, label in zip(self._hash.tolist(), self._label.tolist())]


def hash_texts(buffer: bytes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Hashes, uint64 [n], of the texts buffer[start : start + length], eight bytes of all texts at a time."""
    padded = buffer + bytes(_WORD)
    words = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, 0, (1,))  # the eight bytes from each byte on
    at, left = starts.astype(np.int64), lengths.astype(np.int64)
    value = _mix(left.astype(np.uint64))
    active = np.flatnonzero(left > 0)
    while active.size:
        word, rest = words[at[active]].astype(np.uint64), left[active]
        short = rest < _WORD
        word[short] &= (np.uint64(1) << (np.uint64(8) * rest[short].astype(np.uint64))) - np.uint64(1)
        value[active] = _mix(value[active] ^ word)
        at[active] += _WORD
        left[active] -= _WORD
        active = active[rest > _WORD]
    return value


def _mix(value: np.ndarray) -> np.ndarray:
    """Mix all bits of uint64 values (the finalizer of splitmix64, Steele et al. 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
