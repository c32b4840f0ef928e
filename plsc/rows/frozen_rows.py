"""Class centres that no step changes: they are read only and have no states of an optimizer."""

from __future__ import annotations

from typing import Any

from plsc.rows.shard_rows import ShardRows


class FrozenRows(ShardRows):
    """Rows without an update: a step computes no gradient of them (ClassifierSpec.frozen), so there is nothing to make
    up for, sampled or not."""

    def update_by(self, optimizer: Any, gradients: None, found_inf: Any) -> dict[str, str | None]:
        """A user's optimizer gets nothing of them, and so keeps nothing for them."""
        return {}
