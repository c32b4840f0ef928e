"""The optimizers of backbone and class centres in the training program, and the numbers that they get in each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import ops, static
from plsc.config import Config
from plsc.config.extensions import OPTIMIZER, check_optimizers, class_optimizer_of, value_of
from plsc.rows.optimizer import RowOptimizer, Update, build_optimizer
from plsc.rows.skipped import fed

NUMBERS, CLASS_NUMBERS = "optimizer_numbers", "class_optimizer_numbers"  # inputs of the program


@dataclass(frozen=True)
class Optimizers:
    """The optimizer of the backbone and that of the class centres, which may be the same object."""

    backbone: RowOptimizer
    rows: RowOptimizer

    @classmethod
    def of(cls, config: Config) -> Optimizers:
        """Those that the sections ``optimizer`` and ``class_optimizer`` name. Raises ConfigError."""
        settings = config.settings
        check_optimizers(settings)
        backbone = build_optimizer(settings.optimizer.name, OPTIMIZER.arguments(settings))
        one = class_optimizer_of(settings)
        if one is OPTIMIZER:
            return cls(backbone, backbone)
        return cls(backbone, build_optimizer(value_of(settings, one.key), one.arguments(settings)))

    @property
    def feeds(self) -> dict[str, RowOptimizer]:
        """{input of the program: the optimizer whose RowOptimizer.numbers it takes}."""
        both = {NUMBERS: self.backbone}
        if self.rows is not self.backbone:
            both[CLASS_NUMBERS] = self.rows
        return {name: optimizer for name, optimizer in both.items() if len(optimizer.numbers(1))}

    def row_numbers(self, numbers: dict[str, tuple]) -> tuple:
        """Those of the class centres among the numbers of a step, by ``feeds``."""
        return next((numbers[name] for name, optimizer in self.feeds.items() if optimizer is self.rows), ())


@dataclass(frozen=True)
class Updates:
    """One step of both optimizers in the program being built. ``feeds``: its inputs; ``count``: the state that counts
    the steps, or None where neither optimizer wants to know their number."""

    backbone: Update
    rows: Update
    feeds: dict[str, Any]
    count: Any

    @classmethod
    def create(cls, optimizers: Optimizers, learning_rate, config: Config, skipped_before=None) -> Updates:
        """Create the inputs and the count. ``skipped_before``: see plsc.rows.skipped.fed."""
        feeds, numbers = {}, {}
        for name, optimizer in optimizers.feeds.items():
            width = len(optimizer.numbers(1))
            given, value = fed(name, [width], "float32", skipped_before)
            feeds.update(given)
            numbers[name] = tuple(paddle.split(value, width))
        count = static.create_state("optimizer.steps", [1], "int64") if feeds else None
        decay, vectors = config.weight_decay, config.optimizer.decay_vectors
        of_rows = Update(optimizers.rows, learning_rate, decay, optimizers.row_numbers(numbers))
        of_backbone = Update(
            optimizers.backbone, learning_rate, decay, numbers.get(NUMBERS, ()), decay_vectors=vectors
        )  # fmt: skip
        return cls(of_backbone, of_rows, feeds, count)

    def count_step(self) -> None:
        """Append the increment of the count."""
        if self.count is not None:
            ops.increment_(self.count)
