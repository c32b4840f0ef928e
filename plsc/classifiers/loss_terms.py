"""What a loss (plsc.losses) says in one step, put into what the head works with.

A loss is written for the global batch on one rank. A rank holds the own classes of some features only, or, in
data-parallel mode, some features only; what is missing is fetched here, where the loss asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle

from plsc.backend import collectives, static
from plsc.classifiers import sampling
from plsc.classifiers.checked_loss import CheckedLoss
from plsc.classifiers.head import row_numbers
from plsc.classifiers.target_class import TargetClass
from plsc.losses import Batch
from plsc.rows.blocks import length

DRAWS = 1 << 31  # the streams of Batch.uniform begin here: those below are the samples of the ranks


@dataclass(frozen=True)
class Terms:
    """Values [G] float32 of the features at hand; those of the target count where this rank holds the own class.

    ``logit`` of the own class with its margin; ``slope``, ``norm_slope``: its derivatives by cosine and norm, without
    the factor scale. ``penalty``, ``penalty_slope``: what is added to the loss of each, and its derivative by the norm.
    ``others``: a function of cosines [R, G] with other classes -> (what stands for them, the derivative by them).
    Those that the loss does not have are None.
    """

    logit: Any
    slope: Any
    norm_slope: Any = None
    penalty: Any = None
    penalty_slope: Any = None
    others: Callable | None = None


class LossTerms:
    """``spec.loss`` in the program of ``env``'s rank. ``step`` [1] int64 counts the steps.

    ``changes``: [(a state of the loss, its next value)], known after ``of``; the caller assigns them.
    """

    def __init__(self, spec, env, step=None):
        self.normalised = spec.loss.normalised
        self.scale = spec.scale if self.normalised else 1.0
        self.changes: list[tuple[Any, Any]] = []
        self._loss = CheckedLoss(spec.loss)
        self._env, self._step, self._seed = env, step, spec.seed
        self._splits_classes = spec.model_parallel and env.world_size > 1
        self._splits_batch = not spec.model_parallel and env.world_size > 1
        self._states = {
            name: static.create_state(f"classifier.loss.{name}", [1], "float32", value)
            for name, value in self._loss.states().items()
        }

    @property
    def has_others_rule(self) -> bool:
        """Whether ``of`` has a rule for the other classes, and so must be called before these are worked on."""
        return self._loss.has("others")

    def of(self, own: TargetClass, position) -> Terms:
        """``position`` [G]: -1 where another rank holds the own class."""
        batch = self._global_batch(own, position)
        if self._states:
            batch.states = self._updated(batch)
        if self._loss.elementwise and not self.has_others_rule:
            at_hand = self._batch(lambda: own.cosine, own.norm, batch.states, lambda: self._index(own.cosine))
            target = self._loss.target(at_hand, own.cosine.shape)
        else:
            target = self._at_hand(self._loss.target(batch, batch.cosine.shape))
        penalty = None, None
        if self._loss.has("penalty"):
            penalty = self._at_hand(self._loss.penalty(batch, batch.norm.shape))
        others = self._others(batch, target[0]) if self.has_others_rule else None
        cosine, *slopes = target
        logit = cosine if self.scale == 1.0 else self.scale * cosine
        return Terms(*map(_float32, (logit, *slopes, *penalty)), others)

    def _global_batch(self, own: TargetClass, position) -> Batch:
        states = {name: paddle.cast(state, "float64") for name, state in self._states.items()}

        def cosine():
            known = own.cosine
            if self._splits_classes:  # one rank knows each
                known = paddle.where(position >= 0, known, paddle.zeros_like(known))
                known = collectives.all_reduce(known, self._env.world_size)
            return self._gathered(known)

        def index():
            return self._gathered(self._index(own.cosine))

        return self._batch(cosine, lambda: self._gathered(own.norm()), states, index)

    def _batch(self, cosine: Callable, norm: Callable, states: dict, index: Callable) -> Batch:
        """``index``: which of the global batch the features are, [n] int64."""

        def draw(stream: int):
            return sampling.uniform(index(), self._step, sampling.stream_key(self._seed, DRAWS + stream))

        return Batch(cosine, norm, states, draw)

    def _index(self, like):
        """Which of the global batch the features at hand are, whose values are ``like`` [n]."""
        numbers = row_numbers(like)
        return numbers + self._env.rank * length(like) if self._splits_batch else numbers

    def _gathered(self, value):
        return collectives.all_gather(value, self._env.world_size) if self._splits_batch else value

    def _at_hand(self, values: tuple) -> tuple:
        """Of values of the global batch those of the features of this rank."""
        if not self._splits_batch:
            return values
        ranks, rank = self._env.world_size, self._env.rank
        return tuple(None if value is None else paddle.split(value, ranks)[rank] for value in values)

    def _updated(self, batch: Batch) -> dict[str, Any]:
        """The next states, rounded as they are kept, so that a resumed run sees the same."""
        kept = {name: _float32(value) for name, value in self._loss.update(batch, tuple(self._states)).items()}
        self.changes = [(self._states[name], kept[name]) for name in self._states]
        return {name: paddle.cast(value, "float64") for name, value in kept.items()}

    def _others(self, batch: Batch, target) -> Callable:
        # made here: what is first made within a loop over blocks is not known outside of it
        cosine, norm = (_float32(*self._at_hand((value,))) for value in (batch.cosine, batch.norm))
        states = {name: _float32(value) for name, value in batch.states.items()}
        at_hand = self._batch(lambda: cosine, lambda: norm, states, lambda: self._index(cosine))
        at_hand.target = _float32(target)
        return lambda block: self._loss.others(block, at_hand)


def _float32(value):
    return None if value is None else paddle.cast(value, "float32")
