"""The values of a loss (plsc.losses) in one step, in the form that the head needs.

A loss is written for the global batch on one rank. But a rank holds the target classes of some features only or, in
data-parallel mode, some features only. Values of other ranks are fetched here, when the loss reads them.
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
from plsc.classifiers.pair_terms import PairTerms
from plsc.classifiers.target_class import TargetClass
from plsc.losses import Batch
from plsc.rows.blocks import length

LOSS_STATES = "classifier.loss."  # of the names of the states of a loss
UNIFORM_STREAMS = 1 << 31  # first stream of Batch.uniform; the streams below are those of the ranks' samples


@dataclass(frozen=True)
class Terms:
    """Values [G] float32 of this rank's features; those of the target are used where this rank holds the target class.

    ``logit``: of the target class, with its margin. ``slope``, ``norm_slope``: its derivatives by cosine and norm,
    without the factor scale. ``penalty``, ``penalty_slope``: what is added to the loss of each feature, and its
    derivative by the norm. ``others``: a function of cosines [R, G] with other classes -> (their replacements, the
    derivative by them). Values that the loss does not define are None. ``smoothing``: ClassifierSpec.label_smoothing.
    ``weight``: the factor of each feature's cross entropy, without the penalty.
    """

    logit: Any
    slope: Any
    norm_slope: Any = None
    penalty: Any = None
    penalty_slope: Any = None
    others: Callable | None = None
    smoothing: float = 0.0
    weight: Any = None


class LossTerms:
    """``spec.loss`` in the program of ``env``'s rank. ``step`` [1] int64 counts the steps. ``weight``: see Terms.
    ``learning_rate`` [1]: that of the step.

    ``pairs``: of a PairLoss, else None. ``changes``: [(state of the loss, its next value)], known after ``compute``;
    the caller assigns them.
    """

    def __init__(self, spec, env, step=None, weight=None, learning_rate=None):
        self.normalised = spec.loss.normalised
        self.scale = spec.scale if self.normalised else 1.0
        self.smoothing = spec.label_smoothing
        self.centres = spec.centres
        self.half = spec.half
        self.frozen = spec.frozen
        self.changes: list[tuple[Any, Any]] = []
        self._filter_above, self._weight = spec.filter_above, weight
        self._loss = CheckedLoss(spec.loss)
        self.pairs: PairTerms | None = None
        if self._loss.is_pairs:
            of_step = max(1, round(spec.num_classes * spec.sample_ratio))
            self.pairs = PairTerms(self._loss, self.scale, of_step, learning_rate)
        self._env, self._step, self._seed = env, step, spec.seed
        self._splits_classes = spec.model_parallel and env.world_size > 1
        self._splits_batch = not spec.model_parallel and env.world_size > 1
        self._states = {
            name: static.create_state(LOSS_STATES + name, [1], "float32", value)
            for name, value in self._loss.states().items()
        }

    @property
    def has_others_rule(self) -> bool:
        """Whether the loss changes the cosines of other classes; ``compute`` must then be called before their use."""
        return self._loss.overrides("others") or self._filter_above is not None

    def compute(self, target: TargetClass, position) -> Terms:
        """``position`` [G]: -1 where another rank holds the target class."""
        batch = self._global_batch(target, position)
        if self._states:
            batch.states = self._update_states(batch)
        if self._loss.elementwise and not self._loss.overrides("others"):
            local = self._batch(lambda: target.cosine, target.norm, batch.states, lambda: self._index(target.cosine))
            values = self._loss.target(local, target.cosine.shape)
        else:
            values = self._local_part(self._loss.target(batch, batch.cosine.shape))
        penalty = None, None
        if self._loss.overrides("penalty"):
            penalty = self._local_part(self._loss.penalty(batch, batch.norm.shape))
        others = self._others(batch, values[0]) if self._loss.overrides("others") else None
        if self._filter_above is not None:
            others = _Filter(self._filter_above, others)
        cosine, *slopes = values
        logit = cosine if self.scale == 1.0 else self.scale * cosine
        return Terms(*map(_float32, (logit, *slopes, *penalty)), others, self.smoothing, self._weight)

    def _global_batch(self, target: TargetClass, position) -> Batch:
        states = {name: paddle.cast(state, "float64") for name, state in self._states.items()}

        def cosine():
            known = target.cosine
            if self._splits_classes:  # each cosine is known by one rank
                known = paddle.where(position >= 0, known, paddle.zeros_like(known))
                known = collectives.all_reduce(known, self._env.world_size)
            return self._gather(known)

        def index():
            return self._gather(self._index(target.cosine))

        return self._batch(cosine, lambda: self._gather(target.norm()), states, index)

    def _batch(self, cosine: Callable, norm: Callable, states: dict, index: Callable) -> Batch:
        """``index``: the positions of the features in the global batch, [n] int64."""

        def draw(stream: int):
            return sampling.uniform(index(), self._step, sampling.stream_key(self._seed, UNIFORM_STREAMS + stream))

        return Batch(cosine, norm, states, draw)

    def _index(self, like):
        """The positions in the global batch of this rank's features; ``like`` [n] has one value for each."""
        numbers = row_numbers(like)
        return numbers + self._env.rank * length(like) if self._splits_batch else numbers

    def _gather(self, value):
        return collectives.all_gather(value, self._env.world_size) if self._splits_batch else value

    def _local_part(self, values: tuple) -> tuple:
        """The part of values of the global batch that belongs to this rank's features."""
        if not self._splits_batch:
            return values
        ranks, rank = self._env.world_size, self._env.rank
        return tuple(None if value is None else paddle.split(value, ranks)[rank] for value in values)

    def _update_states(self, batch: Batch) -> dict[str, Any]:
        """The next states, rounded to float32 as they are stored, so that a resumed run sees the same values."""
        stored = {name: _float32(value) for name, value in self._loss.update(batch, tuple(self._states)).items()}
        self.changes = [(self._states[name], stored[name]) for name in self._states]
        return {name: paddle.cast(value, "float64") for name, value in stored.items()}

    def _others(self, batch: Batch, target) -> Callable:
        # computed here: a value that is created inside a loop over blocks does not exist outside of it
        cosine, norm = (_float32(*self._local_part((value,))) for value in (batch.cosine, batch.norm))
        states = {name: _float32(value) for name, value in batch.states.items()}
        local = self._batch(lambda: cosine, lambda: norm, states, lambda: self._index(cosine))
        local.target = _float32(target)
        return lambda block: self._loss.others(block, local)


class _Filter:
    """A rule for the cosines with other classes [R, G]: those above ``limit`` become the constant 0; for the others
    ``rule`` holds (None: they stay)."""

    def __init__(self, limit: float, rule: Callable | None):
        self._limit, self._rule = limit, rule

    def __call__(self, cosine) -> tuple:
        value, slope = (cosine, paddle.ones_like(cosine)) if self._rule is None else self._rule(cosine)
        near, zero = cosine > self._limit, paddle.zeros_like(cosine)
        return paddle.where(near, zero, value), paddle.where(near, zero, slope)


def _float32(value):
    return None if value is None else paddle.cast(value, "float32")
