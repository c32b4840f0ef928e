"""Distributes the images of a set over the ranks, and assembles the results. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plsc.errors import ConfigError, DataError


def split(num_images: int, rank: int, world_size: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The batches of one rank: (indices int64 [K, B], real bool [K, B]), with K = ceil(M / (N * B)) on every rank.

    Step k covers images k*N*B .. (k+1)*N*B - 1; rank r gets the r-th B of them. All ranks make the same number of steps
    with full batches, so that collectives inside a step have all partners. Entries past the end repeat the last image
    with `real` False; their results are discarded.
    Example: 5 images, 2 ranks, batches of 2: rank 0 [[0, 1], [4, 4]], rank 1 [[2, 3], [4, 4]].

    Raises ConfigError for num_images < 0, batch_size < 1, world_size < 1 or a rank outside [0, world_size).
    """
    if num_images < 0 or batch_size < 1 or world_size < 1 or not 0 <= rank < world_size:
        raise ConfigError(
            f"evaluation: num_images {num_images}, rank {rank}, world_size {world_size}, batch_size {batch_size}; "
            "allowed: num_images >= 0, batch_size >= 1, 0 <= rank < world_size"
        )
    steps = -(-num_images // (world_size * batch_size))
    first = (np.arange(steps, dtype=np.int64) * world_size + rank) * batch_size
    wanted = first[:, None] + np.arange(batch_size, dtype=np.int64)
    return np.minimum(wanted, num_images - 1), wanted < num_images


def assemble(parts: Sequence[np.ndarray], num_images: int) -> np.ndarray:
    """The inverse of `split`: from parts[r], the results of rank r [K, B, ...], to one array [num_images, ...].

    Raises DataError if the parts differ in shape, or do not have the number of entries that `split` returned.
    """
    shapes = sorted({part.shape for part in parts})
    if len(shapes) != 1 or len(shapes[0]) < 2:
        raise DataError(f"evaluation: parts of shape {shapes}, expected one [batches, batch_size, ...] for all ranks")
    steps, batch_size = shapes[0][:2]
    per_step = len(parts) * batch_size
    if num_images < 0 or not per_step or steps != -(-num_images // per_step):
        raise DataError(f"evaluation: {steps} batches of {batch_size} from {len(parts)} ranks for {num_images} images")
    stacked = np.stack(parts, axis=1)  # [K, N, B, ...]: reading order is the order of the images
    return stacked.reshape(steps * per_step, *shapes[0][2:])[:num_images]
