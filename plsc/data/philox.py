"""Random numbers as a pure function of (seed, purpose, numbers), so that no rank, worker or order of calls matters."""

from __future__ import annotations

import numpy as np

# One number per use, so that two uses of one seed never share a stream.
SHUFFLE, FLIP, PATTERN, NOISE, USER_DATA, TEST = range(1, 7)
AUGMENT = 1 << 32  # and the numbers after it, by the place of an augmentation among the others
_MASK = 2**64 - 1


def philox(seed: int, purpose: int, first: int = 0, second: int = 0) -> np.random.Generator:
    """A generator of its own for each (seed, purpose, first, second).

    Philox 4x64 turns (128-bit key, 256-bit counter) into random words. The key is (seed, purpose); first and second are
    the upper words of the counter, whose lowest word counts the draws: two streams could only meet after 2**64 draws.
    """
    key = np.array([seed & _MASK, purpose], dtype=np.uint64)
    counter = np.array([0, 0, first, second], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
