"""Class centres in memory, and the optimizers that update them. Imports without Paddle."""

from plsc.rows.optimizer import MissedSteps, RowOptimizer, Slot, Step, register_optimizer

__all__ = ["MissedSteps", "RowOptimizer", "Slot", "Step", "register_optimizer"]
