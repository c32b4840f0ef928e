"""Random numbers as a pure function of (seed, purpose, counters), independent of ranks, workers and call order."""

from __future__ import annotations

import numpy as np

# One number per purpose, so that two purposes never share a stream.
SHUFFLE, FLIP, PATTERN, NOISE, USER_DATA, TEST, BALANCED_IDENTITIES, BALANCED_IMAGES = range(1, 9)
AUGMENT = 1 << 32  # and the following numbers, by the position of an augmentation
_MASK = 2**64 - 1


def philox(seed: int, purpose: int, first: int = 0, second: int = 0) -> np.random.Generator:
    """An independent generator for each (seed, purpose, first, second).

    Philox 4x64 maps (128-bit key, 256-bit counter) to random words. The key is (seed, purpose); first and second are
    the upper words of the counter, and its lowest word counts the draws, so streams are disjoint for 2**64 draws.
    """
    key = np.array([seed & _MASK, purpose], dtype=np.uint64)
    counter = np.array([0, 0, first, second], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
