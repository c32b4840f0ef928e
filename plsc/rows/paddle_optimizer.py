"""Class centres updated by a user's Paddle optimizer (Entry.set_optimizer)."""

from __future__ import annotations

import paddle

from plsc.backend import ops, static
from plsc.errors import ConfigError
from plsc.rows.gradients import RowGradients
from plsc.rows.shard_rows import RowsSpec, ShardRows
from plsc.rows.skipped import zero_if_skipped
from plsc.rows.storage import FLOAT32, RowTable


class PaddleOptimizerRows(ShardRows):
    """Rows updated by a paddle.optimizer. It gets a dense gradient of the shard, as it expects."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self._accumulators: dict[str, RowTable] = {}

    @property
    def tables(self) -> dict[str, RowTable]:
        """See ShardRows."""
        return {"weight": self.table, **self._accumulators}

    def update_by(self, optimizer, gradients: RowGradients, found_inf) -> dict[str, str | None]:
        """Append the optimizer's update. Its states with one row per class are added to ``tables``.

        Returns its other states: {name: name in a checkpoint} for those of this weight, the same on every rank, and
        {name: None} for the rest.
        """
        program = paddle.static.default_main_program()
        index = gradients.blocks.index
        piece = gradients.blocks.only_piece
        gradient = zero_if_skipped(found_inf, gradients.compute(piece, self.fetch(piece)))
        if index is not None:
            gradient = paddle.scatter(paddle.zeros(self.spec.shape, "float32"), index, gradient)
        before = set(static.persistables(program))
        ops.apply_gradients(optimizer, [(self.weight, gradient)])
        others: dict[str, str | None] = {}
        own = self.spec.prefix + "."  # Paddle names a state after the weight it belongs to
        for name, value in static.persistables(program).items():
            if name in before:
                continue
            if list(value.shape) == list(self.spec.shape):
                self._accumulators[f"optimizer_state_{len(self._accumulators)}"] = RowTable(value)
            else:
                others[name] = "classifier." + name[len(own) :] if name.startswith(own) else None
        return others


def check_optimizer(optimizer, storage: str) -> None:
    """Raise ConfigError where a run cannot use this optimizer."""
    if storage != FLOAT32:
        raise ConfigError(
            f"classifier.storage={storage!r}: an optimizer of your own (set_optimizer) needs float32; set "
            "classifier.storage: float32, or omit set_optimizer to use the built-in momentum"
        )
    if getattr(optimizer, "_grad_clip", None) is not None:
        raise ConfigError(
            "set_optimizer: its grad_clip would see only the classes of one rank; remove it and set grad_clip_norm, "
            "which clips by the norm over all ranks"
        )
    if isinstance(getattr(optimizer, "_learning_rate", None), paddle.optimizer.lr.ReduceOnPlateau):
        raise ConfigError(
            "set_optimizer: ReduceOnPlateau needs a metric, which a training step does not have; use a scheduler that "
            "counts steps"
        )
