"""Losses, one file each: a class that computes the target logit from the cosine of a feature and its target centre.

Imports without Paddle; the methods of a loss need it. docs/add_a_loss.md shows how to write one.
"""

from __future__ import annotations

from plsc.losses.base import Batch, Loss
from plsc.losses.pairs import PairLoss
from plsc.losses.registration import register_loss

__all__ = ["Batch", "Loss", "PairLoss", "register_loss"]
