"""Class centres that a user's optimizer of Paddle moves (Entry.set_optimizer)."""

from __future__ import annotations

import paddle

from plsc.backend import ops, static
from plsc.errors import ConfigError
from plsc.rows.gradients import RowGradients
from plsc.rows.shard_rows import RowsSpec, ShardRows
from plsc.rows.skipped import zero_if_skipped
from plsc.rows.storage import FLOAT32, RowTable


class PaddleOptimizerRows(ShardRows):
    """A paddle.optimizer moves the rows. It gets a dense gradient of the shard, which it expects."""

    def __init__(self, spec: RowsSpec):
        super().__init__(spec)
        self._accumulators: dict[str, RowTable] = {}

    @property
    def tables(self) -> dict[str, RowTable]:
        """See ShardRows."""
        return {"weight": self.table, **self._accumulators}

    def update_by(self, optimizer, gradients: RowGradients, found_inf) -> dict[str, str | None]:
        """Returns the optimizer's states that are not per class, {name: name in a checkpoint} of those that belong to
        this weight, which is the same on every rank, {name: None} of the others. Those that are per class join
        ``tables``."""
        program = paddle.static.default_main_program()
        index = gradients.blocks.index
        piece = gradients.blocks.only_piece
        (gradient,) = zero_if_skipped(found_inf, [gradients.compute(piece, self.fetch(piece))])
        if index is not None:
            gradient = paddle.scatter(paddle.zeros(self.spec.shape, "float32"), index, gradient)
        before = set(static.persistables(program))
        ops.apply_gradients(optimizer, [(self.weight, gradient)])
        others: dict[str, str | None] = {}
        own = self.spec.prefix + "."  # Paddle names a state after the weight that it was made for
        for name, value in static.persistables(program).items():
            if name in before:
                continue
            if list(value.shape) == list(self.spec.shape):
                self._accumulators[f"optimizer_state_{len(self._accumulators)}"] = RowTable(value)
            else:
                others[name] = "classifier." + name[len(own) :] if name.startswith(own) else None
        return others


def check_optimizer(optimizer, storage: str) -> None:
    """Raise ConfigError for what a user's optimizer cannot do in a run."""
    if storage != FLOAT32:
        raise ConfigError(
            f"classifier.storage={storage!r}: a user's optimizer (set_optimizer) works on float32; set "
            "classifier.storage: float32, or leave the optimizer out for the built-in momentum"
        )
    if getattr(optimizer, "_grad_clip", None) is not None:
        raise ConfigError(
            "set_optimizer: its grad_clip would see a part of the classes only; leave it out and set grad_clip_norm, "
            "which clips by the norm over all ranks"
        )
    if isinstance(getattr(optimizer, "_learning_rate", None), paddle.optimizer.lr.ReduceOnPlateau):
        raise ConfigError(
            "set_optimizer: ReduceOnPlateau waits for a metric, which a step does not have; take a scheduler that "
            "counts steps"
        )
