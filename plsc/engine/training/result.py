"""What a training run returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from plsc.engine.training.old_classes import OldClasses
from plsc.evaluation.results import Verifications
from plsc.evaluation.tables import metric_tables, verification_table


@dataclass(repr=False)
class Result:
    """What ``train`` returns: the last step and its loss, the last checkpoint, the last verification by set name.

    ``stopped``: the run was stopped (SIGTERM) before its last step. ``unverified``: {step: reason} of the verifications
    that failed; plsc.engine.actions raises a VerificationError for them. ``verification.metrics``: the last values of
    all metrics, {set: {name: value}}. ``old_classes``: what a finished run that began with ``init_from: classes`` still
    knows of the classes that came over.
    """

    step: int
    loss: float
    checkpoint: str
    verification: Verifications
    stopped: bool = False
    unverified: dict[int, str] = field(default_factory=dict)
    old_classes: OldClasses | None = None

    def __str__(self) -> str:
        """A short summary: the last step, its checkpoint, and a table of the verification sets."""
        end = "stopped after" if self.stopped else "trained to"
        lines = [f"{end} step {self.step:,}, loss {self.loss:.4f}", f"checkpoint {self.checkpoint or 'none'}"]
        found = self.verification
        if found or isinstance(found, Verifications) and found.sets:
            lines += metric_tables(found.sets) if isinstance(found, Verifications) else verification_table(found)
        lines += [] if self.old_classes is None else [str(self.old_classes)]
        return "\n".join([*lines, *(f"not verified at step {step}: {why}" for step, why in self.unverified.items())])

    __repr__ = __str__
