"""Do all ranks read the same of a user's own data? What PLSC 0.1's readers did, each rank its slice, is found here."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from plsc.data.hooks import IndexedHook
from plsc.data.reader import ReaderHook
from plsc.errors import DataError

SAMPLES = 32


def look(data: IndexedHook | ReaderHook) -> dict[str, Any]:
    """What this rank sees of it, as plain data: number of samples, labels and pixel checksums of the first ones."""
    samples = data.first(SAMPLES)
    pixels = [zlib.crc32(image.tobytes()) for image, _ in samples]
    return {"count": len(data), "labels": [int(label) for _, label in samples], "pixels": pixels}


def compare(data: IndexedHook | ReaderHook, looks: Sequence[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Raise DataError, on every rank the same, where what the ranks see differs; looks: of all ranks, in order.

    A data set whose pictures differ but not their labels may be augmented by generators of its own: this is said.
    """
    for rank, other in enumerate(looks):
        text = _difference(looks[0], other, rank)
        if text is None:
            continue
        if data.sequential:
            raise DataError(
                f"train_reader: {text}. Every rank reads the whole and is given its share: do not slice by "
                "PADDLE_TRAINER_ID as in PLSC 0.1 (with each its slice, most of the data would never be trained on), "
                "shuffle alike, keep the order (no threads), and draw random numbers from Python's or NumPy's global "
                "generators, which are seeded alike; or give a train_dataset, which needs no order"
            )
        if looks[0]["count"] != other["count"] or looks[0]["labels"] != other["labels"]:
            raise DataError(
                f"train_dataset: {text}. Every rank must have the whole: which samples are its own is decided by PLSC"
            )
        say(f"train_dataset: {text}: random numbers of its own, or other data on that machine")
        return


def _difference(first: dict[str, Any], other: dict[str, Any], rank: int) -> str | None:
    if first["count"] != other["count"]:
        return f"has {first['count']} samples on rank 0 and {other['count']} on rank {rank}"
    for index, labels in enumerate(zip(first["labels"], other["labels"])):
        if labels[0] != labels[1]:
            return f"sample {index} has the label {labels[0]} on rank 0 and {labels[1]} on rank {rank}"
    for index, pixels in enumerate(zip(first["pixels"], other["pixels"])):
        if pixels[0] != pixels[1]:
            return f"sample {index} has other pixels on rank {rank} than on rank 0"
    return None
