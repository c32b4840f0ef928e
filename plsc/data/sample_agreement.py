"""Checks that all ranks read the same samples of a user's own data, and not a slice each, as in PLSC 0.1."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from plsc.data.user_dataset import UserDataset
from plsc.data.user_reader import UserReader
from plsc.errors import DataError

NUM_SAMPLES = 32


def sample_fingerprint(data: UserDataset | UserReader) -> dict[str, Any]:
    """The number of samples, and labels and pixel checksums of the first ones, as plain data."""
    samples = data.first(NUM_SAMPLES)
    pixels = [zlib.crc32(image.tobytes()) for image, _ in samples]
    return {"count": len(data), "labels": [int(label) for _, label in samples], "pixels": pixels}


def require_equal_samples(
    data: UserDataset | UserReader, fingerprints: Sequence[dict[str, Any]], log: Callable[[str], None]
) -> None:
    """Raise the same DataError on every rank if the fingerprints of the ranks, in rank order, differ.

    If only the pixels of a train_dataset differ, it may use random generators of its own: this is only logged.
    """
    for rank, other in enumerate(fingerprints):
        text = _difference(fingerprints[0], other, rank)
        if text is None:
            continue
        if data.sequential:
            raise DataError(
                f"train_reader: {text}. Every rank must read all samples and uses its part of them: do not slice by "
                "PADDLE_TRAINER_ID as in PLSC 0.1 (most of the data would never be used), shuffle equally on all "
                "ranks, keep the order (no threads), and draw random numbers from Python's or NumPy's global "
                "generators, which are seeded equally; or use a train_dataset, which needs no order"
            )
        if fingerprints[0]["count"] != other["count"] or fingerprints[0]["labels"] != other["labels"]:
            raise DataError(
                f"train_dataset: {text}. Every rank must have all samples: PLSC distributes them over the ranks"
            )
        log(f"train_dataset: {text}: it uses its own random generators, or that machine has other data")
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
