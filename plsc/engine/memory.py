"""Memory of the process: glibc is told to keep what it has."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc
LARGE = 2**31 - 1


def keep_big_blocks() -> bool:
    """Take big blocks from the heap and do not give them back to the kernel between steps; True if glibc obeyed.

    By default each block above 32 MB is mapped anew at every allocation, and its first use faults in every page: a
    step of a large net or classifier spends more time on that than on the arithmetic (docs/design.md has figures).
    The price is some unused memory between blocks.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, LARGE))
