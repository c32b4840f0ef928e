"""LARS, for a parameter w with velocity v and gradient g:

    ratio := trust * |w| / (|g| + weight_decay * |w|)
    v := momentum * v + learning_rate * ratio * (g + weight_decay * w)
    w := w - v
"""

from __future__ import annotations

from plsc.rows.optimizer import RowOptimizer, Slot, Step, register_optimizer
from plsc.rows.optimizers.trust_ratio import norm, trust_ratio


@register_optimizer("lars", source="You et al. 2017, arXiv:1708.03888, algorithm 1")
class Lars(RowOptimizer):
    """Momentum with a learning rate for each parameter of the backbone, from its norm and that of its gradient.

    ``trust``: the factor of the ratio of the norms. Raises ValueError for one that is not above 0.
    """

    slots = (Slot("velocity"),)
    for_rows = False

    def __init__(self, momentum: float, trust: float = 0.001):
        if not trust > 0:
            raise ValueError(f"trust={trust}: must be above 0")
        self.momentum, self.trust = momentum, trust

    def step(self, weight, slots: tuple, gradient, step: Step) -> tuple:
        """See RowOptimizer.step."""
        size = norm(weight, step)
        ratio = trust_ratio(weight, self.trust * size, norm(gradient, step) + step.weight_decay * size, step)
        velocity = self.momentum * slots[0] + step.learning_rate * ratio * (gradient + step.weight_decay * weight)
        return weight - velocity, (velocity,)
