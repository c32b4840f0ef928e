"""Rows that are an input of a program."""

from __future__ import annotations

import paddle

from plsc.rows.blocks import RowPiece
from plsc.rows.operations import squared_length


class GivenRows:
    """The rows ``values`` [L, row size] of a shard, which nothing updates. See plsc.rows.shard_rows.RowValues."""

    def __init__(self, values):
        self._values = values

    def fetch(self, piece: RowPiece):
        """See RowValues."""
        index = piece.block.index
        return self._values if index is None else paddle.gather(self._values, index)

    def squares(self, piece: RowPiece):
        """See RowValues."""
        return squared_length(self.fetch(piece), piece.block.for_cpu)
