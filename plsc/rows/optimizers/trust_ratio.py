"""The trust ratio of LARS and LAMB: the size of a parameter over that of its update. No optimizer itself."""

from __future__ import annotations

from plsc.rows.optimizer import Step


def norm(value, step: Step):
    """The norm of all numbers of a parameter."""
    return step.xp.sqrt(step.xp.sum(value * value))


def trust_ratio(weight, weight_norm, update_norm, step: Step):
    """``weight_norm / update_norm``; 1 where one of the two is 0, and for a weight of one dimension.

    Biases, scales and shifts of norms and slopes have one dimension. Their norm says nothing of a good size of their
    update: biases begin at 0.
    """
    if len(weight.shape) <= 1:
        return 1.0
    one = step.xp.ones_like(weight_norm)
    usable = weight_norm * update_norm > 0
    return step.xp.where(usable, weight_norm / step.xp.where(usable, update_norm, one), one)
