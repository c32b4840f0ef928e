"""AdamW: Adam with decoupled weight decay, for weight w, gradient g, moments m and v of step t:

    m := beta1 * m + (1 - beta1) * g
    v := beta2 * v + (1 - beta2) * g^2
    w := w - learning_rate * (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay * w)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from plsc.rows.optimizer import MissedSteps, RowOptimizer, Slot, Step, register_optimizer
from plsc.rows.optimizers.missed_adam import MissedAdam


class AdamMoments(RowOptimizer):
    """Base class of optimizers with Adam's two moments. Raises ValueError for options out of range."""

    slots = (Slot("first_moment"), Slot("second_moment"))

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8):
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value}: must be in [0, 1)")
        if not epsilon > 0:
            raise ValueError(f"epsilon={epsilon}: must be above 0")
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def numbers(self, count: int) -> Sequence[float]:
        """The bias corrections of step ``count``."""
        return 1.0 / (1.0 - self.beta1**count), 1.0 / (1.0 - self.beta2**count)

    def change(self, slots: tuple, gradient, step: Step) -> tuple:
        """(the corrected first moment over the root of the second, the new moments)."""
        first = self.beta1 * slots[0] + (1.0 - self.beta1) * gradient
        second = self.beta2 * slots[1] + (1.0 - self.beta2) * (gradient * gradient)
        unbias_first, unbias_second = step.numbers
        change = first * unbias_first / (step.xp.sqrt(second * unbias_second) + self.epsilon)
        return change, (first, second)


@register_optimizer("adamw", source="Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2")
class AdamW(AdamMoments):
    """Adam with decoupled weight decay. Class centres make up missed steps by a few numbers (MissedAdam), or, with
    betas for which these would not be exact enough, by repeating them."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8):
        super().__init__(beta1, beta2, epsilon)
        missed = MissedAdam(beta1, beta2, epsilon)
        self._missed = missed if missed.is_exact else None

    @property
    def points(self) -> np.ndarray | None:
        """MissedAdam.points."""
        return None if self._missed is None else self._missed.points

    @property
    def repeats_missed_steps(self) -> bool:
        """See RowOptimizer."""
        return self._missed is None

    @property
    def has_kernels(self) -> bool:
        """See RowOptimizer."""
        return self._missed is not None

    def rows_class(self, sampled: bool) -> Callable | None:
        """See RowOptimizer.rows_class."""
        from plsc.rows.adam_rows import SampledAdamRows

        return SampledAdamRows if sampled and self.has_kernels else None

    def step(self, weight, slots: tuple, gradient, step: Step) -> tuple:
        """See RowOptimizer.step."""
        change, slots = self.change(slots, gradient, step)
        return weight - step.learning_rate * (change + step.weight_decay * weight), slots

    def nothing_missed(self) -> Sequence[float]:
        """See RowOptimizer.nothing_missed."""
        return super().nothing_missed() if self._missed is None else self._missed.nothing()

    def missed(self, table: np.ndarray, step: Step) -> np.ndarray:
        """See RowOptimizer.missed."""
        return super().missed(table, step) if self._missed is None else self._missed.one_more(table, step)

    def bring_up_to_date(self, weight, slots: tuple, missed: MissedSteps) -> tuple:
        """See RowOptimizer.bring_up_to_date."""
        method = super().bring_up_to_date if self._missed is None else self._missed.bring_up_to_date
        return method(weight, slots, missed)

    def of_window(self, numbers: int) -> RowOptimizer | None:
        """See RowOptimizer.of_window. Versions differ in the number of points, and in the betas that have any."""
        other = copy.copy(self)
        repeats = numbers == len(super().nothing_missed())
        other._missed = None if repeats else MissedAdam.of_window(self.beta1, self.beta2, self.epsilon, numbers)
        return other if repeats or other._missed is not None else None
