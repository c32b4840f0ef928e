"""Operations on rows of class centres, by the operations of Paddle that are fast on CPUs for them.

Rows are [R, E]. In blocks, and so on a CPU, they are the channels of one picture instead, [1, R, 1, E]: so
each can be scaled by its own factor in one pass. Broadcasting takes four times as long there.
"""

from __future__ import annotations

import paddle

from plsc.backend import ops


def gather_rows(table, index):
    """table[index], a copy: [R, E] for ``index`` [R]. The lookup of embeddings copies with all threads, ``gather`` with
    one."""
    return paddle.nn.functional.embedding(index, table)


def as_channels(index):
    """``index`` [R] such that gather_rows makes channels of the rows."""
    return paddle.reshape(index, [1, -1, 1])


def scale_rows(rows, factor, by_channel: bool = False):
    """Each row times its ``factor`` [R, 1]; ``rows`` [R, E] or, as channels, [1, R, 1, E].

    ``by_channel``: rows [R, E] are made channels for it.
    """
    if len(rows.shape) == 4:
        return ops.scale_channels(rows, paddle.reshape(factor, [-1]))
    if not by_channel:
        return rows * factor
    return flat(scale_rows(paddle.reshape(rows, [1, -1, 1, rows.shape[1]]), factor))


def flat(rows):
    """[R, E] whichever of the two ``rows`` are."""
    return rows if len(rows.shape) == 2 else paddle.reshape(rows, [-1, rows.shape[-1]])


def squared_length(rows):
    """|row|**2 [R, 1] of ``rows`` [R, E] by a product: Paddle's sum over [R, E] takes five times as long on the CPU."""
    return paddle.matmul(rows * rows, paddle.ones([rows.shape[1], 1], rows.dtype))
