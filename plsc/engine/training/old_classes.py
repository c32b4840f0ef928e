"""What fine-tuning forgets: the accuracy on old classes before the first step and after the last one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.data import Loader, SourceDataset
from plsc.data.listed import ListedSampler, images_of
from plsc.engine.program.labelled import LabelledProgram, build_labelled, embed
from plsc.engine.program.session import Session
from plsc.engine.run.start import Run
from plsc.engine.training.initial_weights import InitialWeights
from plsc.errors import DataError

MOST_IMAGES = 1000  # a standard error of 1.6 % at most, and twice the time of about three steps of as many images
EXTRA = "old_classes"  # the key in the extra of a checkpoint


@dataclass(frozen=True)
class OldClasses:
    """The fraction of ``images`` of old classes that are nearer to their own centre than to that of any other class of
    the run: ``before`` training and ``after`` it, None where it could not be measured again."""

    images: int
    before: float
    after: float | None = None

    def __str__(self) -> str:
        text = f"{self.images:,} images of classes that came over, nearest to their own centre: {self.before:.2%}"
        if self.after is None:
            return f"{text} before training"
        return f"{text} before training, {self.after:.2%} after it"


class Forgetting:
    """Measures a run that began with ``init_from: classes``; every rank calls the methods.

    ``images`` [n] are the indices of a sample of the images of old classes, ``labels`` [n] their labels and ``right``
    the number of those that were nearest to their own centre before training.
    """

    def __init__(self, run: Run, data, images: np.ndarray, labels: np.ndarray, right: int):
        self._run = run
        self._data = data.without_augmentation() if isinstance(data, SourceDataset) else data
        self._images, self._labels, self._right = images, labels, right
        self._program: LabelledProgram | None = None

    @classmethod
    def begin(cls, run: Run, session: Session, data, initial: InitialWeights) -> Forgetting | None:
        """Measure before training; None without images of old classes, which is logged."""
        if initial.new is None:
            return None
        is_old = ~initial.is_new(session.program.spec.num_classes)
        if data.sequential:
            run.log.info("old classes: train_reader has an order of its own; what is forgotten is not measured")
            return None
        images = _sample(data, is_old, run.seed)
        made = cls(run, data, images, np.empty(0, np.int64), 0)
        features, labels = made._embed(session)
        made._images, made._labels = images[is_old[labels]], labels[is_old[labels]]
        if not len(made._images):
            run.log.info("old classes: the data have no images of them; what is forgotten is not measured")
            return None
        made._right = _count_right(run, session, features[is_old[labels]], made._labels)
        run.log.info(f"old classes: {made.result(None)}")
        return made

    @classmethod
    def resume(cls, run: Run, data, extra: Mapping[str, Any]) -> Forgetting | None:
        """That of the run that saved a checkpoint with this ``extra``; None where it has none."""
        stored = extra.get(EXTRA)
        if not isinstance(stored, dict) or data.sequential:
            return None
        images, labels, right = (stored.get(key) for key in ("images", "labels", "right"))
        if not (_are_numbers(images) and _are_numbers(labels) and _are_numbers([right])):
            return None
        if not 0 < len(images) == len(labels) <= MOST_IMAGES or max(images) >= len(data) or right > len(images):
            return None
        return cls(run, data, np.array(images, np.int64), np.array(labels, np.int64), right)

    @property
    def extra(self) -> dict[str, Any]:
        """What a checkpoint stores for ``resume``."""
        return {EXTRA: {"images": self._images.tolist(), "labels": self._labels.tolist(), "right": self._right}}

    def result(self, right: int | None) -> OldClasses:
        """The result, with the number that are right after training."""
        number = len(self._images)
        return OldClasses(number, self._right / number, None if right is None else right / number)

    def end(self, session: Session) -> OldClasses:
        """Measure after training, and log it. Rows must be up to date. An error in the data is logged, not raised."""
        try:
            features, labels = self._embed(session)
            if (labels != self._labels).any():
                raise DataError("their labels have changed since the run began")
        except DataError as error:
            self._run.log.info(f"old classes: not measured after training: {error}")
            return self.result(None)
        found = self.result(_count_right(self._run, session, features, self._labels))
        self._run.log.info(f"old classes: {found}")
        return found

    def _embed(self, session: Session) -> tuple[np.ndarray, np.ndarray]:
        """(features [n, E], labels [n]) of the images, on every rank. Raises DataError, on every rank."""
        run, count = self._run, len(self._images)
        if not count:
            return np.empty((0, session.program.spec.embedding_size), np.float32), np.empty(0, np.int64)
        size = min(run.config.test_batch_size, -(-count // run.env.world_size))
        sampler = ListedSampler(self._images, size, run.env.rank, run.env.world_size)
        # all of them first: an image that cannot be read must not leave the other ranks in a collective
        batches = run.group.agree(lambda: list(Loader(self._data, sampler, 0, 0, sampler.steps)))
        if self._program is None:
            self._program = build_labelled(run.config, run.user_objects, run.env, size)
        found = list(embed(session, self._program, batches))
        features, labels = (np.concatenate(parts)[:count] for parts in zip(*found))
        return features, labels


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)


def _sample(data, is_old: np.ndarray, seed: int) -> np.ndarray:
    """At most MOST_IMAGES indices of images of old classes, in rising order; of any classes, where labels are only
    known by reading the images."""
    labels = data.source.known_labels() if isinstance(data, SourceDataset) else None
    index = np.arange(len(data)) if labels is None else images_of(labels, is_old)
    if len(index) <= MOST_IMAGES:
        return index
    return np.sort(np.random.default_rng(seed).choice(index, MOST_IMAGES, replace=False))


def _count_right(run: Run, session: Session, features: np.ndarray, labels: np.ndarray) -> int:
    """How many features [n, E] are at least as near to the centre of their label as to any other, of all ranks."""
    shard, best = session.program.shard, np.full(len(labels), -np.inf)
    own = np.full(len(labels), -np.inf)
    for first, rows in session.weights():
        scores = _scores(session, features, rows)
        column = labels - shard.first - first
        here = np.flatnonzero((column >= 0) & (column < len(rows)))
        own[here] = scores[here, column[here]]
        best = np.maximum(best, scores.max(axis=1))
    everywhere = np.array(run.group.all_gather([own.tolist(), best.tolist()])).max(axis=0)
    return int((everywhere[0] >= everywhere[1]).sum())


def _scores(session: Session, features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[n, R] float64: cosines, the largest with the centres of a class, or with a bias (softmax) logits."""
    size, features = session.program.spec.embedding_size, features.astype(np.float64)
    if session.program.spec.with_bias:
        return features @ rows[:, :size].astype(np.float64).T + rows[:, size]
    centres = rows.reshape(-1, size).astype(np.float64)
    return (_unit(features) @ _unit(centres).T).reshape(len(features), len(rows), -1).max(axis=2)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
