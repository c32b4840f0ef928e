"""Momentum with L2 decay, for weight w, velocity v and gradient g:

    v := momentum * v + g + weight_decay * w
    w := w - learning_rate * v

Without a gradient, a step is the same 2x2 matrix for all numbers of all rows. So any number of missed steps is a
product of such matrices: four numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from plsc.rows.optimizer import MissedSteps, RowOptimizer, Slot, Step, register_optimizer

# The gradient of a class that is not in the batch is about 1e-7, where the spacing of float16 is 6e-8; a large one is
# about 10. Multiplied by 1024, both are in the range in which float16 has 11 bits.
VELOCITY_FACTOR = 1024.0


@register_optimizer("momentum", source="Polyak 1964")
class Momentum(RowOptimizer):
    """Gradient descent with momentum and L2 decay; plain gradient descent where momentum is 0."""

    slots = (
        Slot("velocity", follows_storage=True, float16_factor=VELOCITY_FACTOR, cut_count="momentum_cut"),
    )  # fmt: skip

    has_kernels = True

    def __init__(self, momentum: float):
        self.momentum = momentum

    def step(self, weight, slots: tuple, gradient, step: Step) -> tuple:
        """See RowOptimizer.step."""
        velocity = self.momentum * slots[0] + gradient + step.weight_decay * weight
        return weight - step.learning_rate * velocity, (velocity,)

    def nothing_missed(self) -> Sequence[float]:
        """The identity matrix."""
        return 1.0, 0.0, 0.0, 1.0

    def missed(self, table: np.ndarray, step: Step) -> np.ndarray:
        """``table`` [n, 4]: the matrix (ww, wv, vw, vv) of each step of the window, multiplied by that of this step."""
        rate, decay, momentum = step.learning_rate, step.weight_decay, self.momentum
        matrix = np.array([[1.0 - rate * decay, -rate * momentum], [decay, momentum]])
        return (matrix @ table.reshape(-1, 2, 2)).reshape(-1, 4)

    def bring_up_to_date(self, weight, slots: tuple, missed: MissedSteps) -> tuple:
        """See RowOptimizer.bring_up_to_date."""
        (velocity,), (ww, wv, vw, vv) = slots, missed.factors()
        return ww * weight + wv * velocity, (vw * weight + vv * velocity,)

    # --- the same results in fewer passes ---

    def update_(self, weight, slots: tuple, gradient, step: Step) -> None:
        """See RowOptimizer.update_; one operation of Paddle."""
        self.apply_(weight, slots[0], gradient, step)

    def apply_(self, weight, velocity, gradient, step: Step) -> tuple:
        """Append one step in place. Returns (weight, velocity)."""
        from plsc.backend import ops

        return ops.momentum_(weight, gradient, velocity, step.learning_rate, self.momentum, step.weight_decay)

    def rows_class(self, sampled: bool) -> Callable:
        """See RowOptimizer.rows_class."""
        from plsc.rows.momentum_rows import DenseMomentumRows, SampledMomentumRows

        return SampledMomentumRows if sampled else DenseMomentumRows
