"""Operations on rows [R, E] of class centres, by the operations of Paddle that are fast on CPUs for them."""

from __future__ import annotations

import paddle


def gather_rows(table, index):
    """table[index] [R, E], a copy. The lookup of embeddings copies with all threads, ``gather`` with one."""
    return paddle.nn.functional.embedding(index, table)


def scale_rows(rows, factor, in_loop: bool):
    """Each row times its ``factor`` [R, 1].

    ``in_loop``: this is in a loop over blocks, and so on a CPU, where the factors are spread over the rows by a product
    with ones, which is exact there (a GPU might round to TF32), and the rest is one threaded pass: half the time of
    broadcasting.
    """
    if not in_loop:
        return rows * factor
    return rows * paddle.matmul(factor, paddle.ones([1, rows.shape[1]], rows.dtype))
