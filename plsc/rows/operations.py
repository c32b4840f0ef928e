"""Operations on rows of class centres, by those operations of Paddle that are fast on CPUs.

Rows are [R, E]. In blocks on CPUs they are treated as the channels of one image, [1, R, 1, E]: each can then
be scaled by its own factor in one pass. Broadcasting takes four times as long there.
"""

from __future__ import annotations

import paddle

from plsc.backend import ops


def gather_rows(table, index):
    """table[index] [R, E], a copy; ``index`` [R]. ``embedding`` copies with all threads, ``gather`` with one."""
    return paddle.nn.functional.embedding(index, table)


def as_channels(index):
    """``index`` [R] in a shape for which gather_rows returns the rows as channels."""
    return paddle.reshape(index, [1, -1, 1])


def scale_rows(rows, factor, by_channel: bool = False):
    """Each row times its ``factor`` [R, 1]; ``rows`` [R, E] or, as channels, [1, R, 1, E].

    ``by_channel``: treat rows [R, E] as channels.
    """
    if len(rows.shape) == 4:
        return ops.scale_channels(rows, paddle.reshape(factor, [-1]))
    if not by_channel:
        return rows * factor
    return flat(scale_rows(paddle.reshape(rows, [1, -1, 1, rows.shape[1]]), factor))


def flat(rows):
    """``rows`` in either form as [R, E]."""
    return rows if len(rows.shape) == 2 else paddle.reshape(rows, [-1, rows.shape[-1]])


def squared_length(rows, by_product: bool = True):
    """|row|**2 [R, 1] of ``rows`` [R, E].

    ``by_product``: by a matrix product, because Paddle's ``sum`` takes five times as long on CPUs. A GPU would round
    the squares of float32 numbers to TF32 in it.
    """
    squares = rows * rows
    if not by_product:
        return paddle.sum(squares, axis=1, keepdim=True)
    return paddle.matmul(squares, paddle.ones([rows.shape[1], 1], rows.dtype))
