"""Adafactor: Adam's second moment of a matrix by its rows and columns, for weight w [n, m], gradient g, step t:

    b := 1 - t^-decay_power
    r := b * r + (1 - b) * mean over the columns of (g^2 + epsilon1)        [n]
    c := b * c + (1 - b) * mean over the rows of (g^2 + epsilon1)           [m]
    u := g / sqrt(r c^T / mean(r))
    u := u / max(1, RMS(u) / clip_threshold)
    w := w - rate * (max(epsilon2, RMS(w)) * u + weight_decay * w)
    rate := learning_rate * min(1, 100 / sqrt(t))

With a learning rate of 0.01, ``rate`` is the relative step min(0.01, 1 / sqrt(t)) of the paper's algorithm 6. Means
instead of the sums of algorithm 4 make no difference to u. A weight of more than two dimensions is a matrix of its
first one and all others: the kernel [out, in, height, width] of a convolution is [out, in * height * width]. A weight
of one dimension, or a scalar, has a full second moment in place of r and c (algorithm 5). The weight decay is that of
AdamW; the paper has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from plsc.rows.optimizer import RowOptimizer, Slot, Step, register_optimizer

RELATIVE_STEP = 1e-2  # of algorithm 6, up to step 1 / RELATIVE_STEP^2
ROWS, COLUMNS, FULL = Slot("row_moment"), Slot("column_moment"), Slot("second_moment")


@register_optimizer("adafactor", source="Shazeer & Stern 2018, arXiv:1804.04235, algorithms 4 to 6")
class Adafactor(RowOptimizer):
    """A learning rate for each number of the backbone, like Adam, with n + m numbers for a matrix [n, m] in memory.

    ``relative_step``: multiply the learning rate by min(1, 100 / sqrt(t)). ``scale_parameter``: by the RMS of the
    weight, at least ``epsilon2``. Raises ValueError for options out of range.
    """

    slots = (ROWS, COLUMNS, FULL)
    for_rows = False

    def __init__(
        self,
        decay_power: float = 0.8,
        clip_threshold: float = 1.0,
        epsilons: Sequence[float] = (1e-30, 1e-3),
        relative_step: bool = True,
        scale_parameter: bool = True,
    ):
        if not 0 < decay_power <= 1:
            raise ValueError(f"decay_power={decay_power}: must be in (0, 1]")
        if not clip_threshold > 0:
            raise ValueError(f"clip_threshold={clip_threshold}: must be above 0")
        if len(epsilons) != 2 or not all(value > 0 for value in epsilons):
            raise ValueError(f"epsilons={epsilons}: must be two numbers above 0")
        self.decay_power, self.clip_threshold, self.epsilons = decay_power, clip_threshold, tuple(epsilons)
        self.relative_step, self.scale_parameter = relative_step, scale_parameter

    def slots_of(self, shape: Sequence[int]) -> tuple[tuple[Slot, list[int]], ...]:
        """See RowOptimizer.slots_of."""
        if len(shape) < 2:
            return ((FULL, list(shape)),)
        return (ROWS, [shape[0]]), (COLUMNS, [math.prod(shape[1:])])

    def numbers(self, count: int) -> Sequence[float]:
        """The share of the gradient in the moments in step ``count``, and the factor of the learning rate. The share,
        and not its difference from 1: of that float32 has hardly four digits after 40,000 steps."""
        factor = min(1.0, 1.0 / (RELATIVE_STEP * math.sqrt(count))) if self.relative_step else 1.0
        return count**-self.decay_power, factor

    def step(self, weight, slots: tuple, gradient, step: Step) -> tuple:
        """See RowOptimizer.step."""
        share, factor = step.numbers
        square = gradient * gradient + self.epsilons[0]
        if len(weight.shape) < 2:
            slots = (slots[0] + share * (square - slots[0]),)
            change = gradient / step.xp.sqrt(slots[0])
        else:
            matrix = step.xp.reshape(square, [weight.shape[0], -1])
            means = (step.xp.mean(matrix, axis=1), step.xp.mean(matrix, axis=0))
            slots = tuple(old + share * (new - old) for old, new in zip(slots, means))
            change = step.xp.reshape(self._divided(gradient, slots, step), list(weight.shape))
        size = _rms(change, step) / self.clip_threshold
        change = change / step.xp.maximum(size, step.xp.ones_like(size))
        if self.scale_parameter:
            size = _rms(weight, step)
            change = change * step.xp.maximum(size, step.xp.full_like(size, self.epsilons[1]))
        return weight - step.learning_rate * factor * (change + step.weight_decay * weight), slots

    @staticmethod
    def _divided(gradient, slots: tuple, step: Step):
        """The gradient, as a matrix, over the root of r c^T / mean(r). A product of r and c could be too small for
        float32; each root alone is not."""
        rows, columns = slots
        matrix = step.xp.reshape(gradient, [gradient.shape[0], -1])
        by_row = step.xp.sqrt(rows / step.xp.mean(rows))
        return matrix / step.xp.reshape(by_row, [-1, 1]) / step.xp.reshape(step.xp.sqrt(columns), [1, -1])


def _rms(value, step: Step):
    """The root of the mean square of all numbers."""
    return step.xp.sqrt(step.xp.mean(value * value))
