"""LAMB, for a parameter w with gradient g; r is the change of AdamW:

    r := m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay * w
    w := w - learning_rate * |w| / |r| * r
"""

from __future__ import annotations

from plsc.rows.optimizer import Step, register_optimizer
from plsc.rows.optimizers.adamw import AdamMoments
from plsc.rows.optimizers.trust_ratio import norm, trust_ratio


@register_optimizer("lamb", source="You et al. 2020, arXiv:1904.00962, algorithm 2")
class Lamb(AdamMoments):
    """AdamW with a learning rate for each parameter of the backbone, from its norm and that of its update."""

    for_rows = False

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6):
        super().__init__(beta1, beta2, epsilon)

    def step(self, weight, slots: tuple, gradient, step: Step) -> tuple:
        """See RowOptimizer.step."""
        change, slots = self.change(slots, gradient, step)
        change = change + step.weight_decay * weight
        ratio = trust_ratio(weight, norm(weight, step), norm(change, step), step)
        return weight - step.learning_rate * ratio * change, slots
