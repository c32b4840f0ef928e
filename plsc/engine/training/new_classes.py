"""``new_classes: mean``: the centres of new classes begin at the mean embedding of their images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from plsc.data import Loader, LoaderOptions, SourceDataset
from plsc.data.listed import ListedSampler, images_of
from plsc.engine.program.labelled import build_labelled, embed
from plsc.engine.program.session import Session
from plsc.engine.run.run_log import clock
from plsc.engine.run.start import Run
from plsc.engine.run.stopping import DataTimeout, StopRequest
from plsc.engine.training.initial_weights import InitialWeights

ZERO_NORM = 1e-6  # below it a feature has no direction (docs/design.md)
LOG_SECONDS = 60


class MeanDirections:
    """Sums unit features by class, in float64 and in the order of ``add``: the sum does not depend on the batches.

    ``labels`` [n]: the classes, in rising order.
    """

    def __init__(self, labels: np.ndarray, embedding_size: int):
        self.labels = labels
        self.count = np.zeros(len(labels), np.int64)
        self._sum = np.zeros((len(labels), embedding_size))

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Add features [G, E] with their labels [G]; those of other classes, and zero features, are left out."""
        place = np.searchsorted(self.labels, labels)
        known = place < len(self.labels)
        known[known] = self.labels[place[known]] == labels[known]
        features = features.astype(np.float64)
        norm = np.linalg.norm(features, axis=1)
        known &= norm >= ZERO_NORM
        np.add.at(self._sum, place[known], features[known] / norm[known, None])
        np.add.at(self.count, place[known], 1)

    def directions(self) -> tuple[np.ndarray, np.ndarray]:
        """(places in ``labels`` [m], unit vectors float64 [m, E]) of the classes that have a mean direction."""
        norm = np.linalg.norm(self._sum, axis=1)
        there = np.flatnonzero(norm >= ZERO_NORM)
        return there, self._sum[there] / norm[there, None]


@dataclass(frozen=True)
class NewClasses:
    """The new classes, ``is_new`` [C] bool, and their images: ``loader`` reads them in the order of ``sampler``."""

    is_new: np.ndarray
    sampler: ListedSampler
    loader: Loader


@contextlib.contextmanager
def read_new_classes(
    run: Run, data, initial: InitialWeights | None, request: StopRequest
) -> Iterator[NewClasses | None]:
    """A context in which the images of new classes are read, without augmentation; None where none are wanted."""
    config = run.config
    if initial is None or config.new_classes != "mean":
        yield None
        return
    is_new = initial.is_new(config.classifier.num_classes)
    sampler = ListedSampler(_images_of(data, is_new), config.test_batch_size, run.env.rank, run.env.world_size)
    plain = data.without_augmentation() if isinstance(data, SourceDataset) else data
    options = LoaderOptions(stop_waiting=DataTimeout(request, config.stall_timeout, run.env.world_size))
    with Loader(plain, sampler, config.data.num_workers, 0, sampler.steps, options) as loader:
        yield NewClasses(is_new, sampler, loader)


def _images_of(data, is_new: np.ndarray) -> np.ndarray:
    """The indices of the images of new classes; of all images, where labels are only known by reading them."""
    labels = data.source.known_labels() if isinstance(data, SourceDataset) else None
    if not is_new.any():
        return np.empty(0, np.int64)
    return np.arange(len(data)) if labels is None else images_of(labels, is_new)


def begin_at_means(run: Run, session: Session, new: NewClasses | None) -> None:
    """Set the rows of the new classes to the mean direction of their images, in the mean length of the other rows; with
    None nothing is done. Every rank calls it.

    The bias of a row (softmax) is the mean of the others. If all classes are new, all rows are the others. Of several
    centres of a class (classifier.sub_centres) the first is set, the others stay as drawn.
    """
    if new is None or not new.is_new.any():
        return
    is_new, sampler, loader = new.is_new, new.sampler, new.loader
    began, shard = time.monotonic(), session.program.shard
    own = is_new[shard.first : shard.first + shard.num_local]
    means = MeanDirections(np.flatnonzero(own) + shard.first, session.program.spec.embedding_size)
    program = build_labelled(run.config, run.user_objects, run.env, sampler.batch_size)
    told = began
    for step, (features, labels) in enumerate(embed(session, program, loader)):
        real = sampler.real(step)
        means.add(features[:real], labels[:real])
        told = _progress(run, step, sampler, began, told)
    length, bias = _typical_row(run, session, ~own if not is_new.all() else own)
    there, directions = means.directions()
    rows, size = means.labels[there] - shard.first, session.program.spec.embedding_size
    for first, block in session.weights():
        begin, end = np.searchsorted(rows, [first, first + len(block)])
        if begin == end:
            continue
        values = block[rows[begin:end] - first]
        values[:, :size] = length * directions[begin:end]
        if len(bias):
            values[:, size:] = bias
        session.set_rows("weight", rows[begin:end], values)
    _report(run, session, is_new, means, len(there), time.monotonic() - began)


def _progress(run: Run, step: int, sampler: ListedSampler, began: float, told: float) -> float:
    """Show the progress, and log it once a minute; returns when it was last logged."""
    now, done = time.monotonic(), step * len(sampler) // sampler.steps + sampler.real(step)
    done = min(done, len(sampler))
    left = clock((now - began) / done * (len(sampler) - done))
    run.log.progress(f"images of new classes, {left} left", done, len(sampler))
    if now - told <= LOG_SECONDS or done == len(sampler):
        return told
    run.log.info(f"new_classes: {done:,} of {len(sampler):,} images, {left} left")
    return now


def _typical_row(run: Run, session: Session, of: np.ndarray) -> tuple[float, np.ndarray]:
    """(mean length of a centre, mean bias [0 or 1]) of the rows ``of`` [L] bool of all ranks."""
    spec = session.program.spec
    size = spec.sub_centres * spec.embedding_size
    total = np.zeros(2 + spec.row_size - size)  # number, lengths, bias
    for first, block in session.weights():
        block = block[of[first : first + len(block)]].astype(np.float64)
        lengths = np.linalg.norm(block[:, :size].reshape(-1, spec.embedding_size), axis=1)
        total += [len(block), lengths.sum() / spec.sub_centres, *block[:, size:].sum(axis=0)]
    number, length, *bias = np.sum(run.group.all_gather(total.tolist()), axis=0)
    return float(length / number), np.array(bias) / number


def _report(run: Run, session: Session, is_new: np.ndarray, means: MeanDirections, begun: int, seconds: float) -> None:
    """Log how many classes begin at a mean, and how many have no images."""
    found = run.group.all_gather([begun, int(means.count.sum())])
    ranks = found if session.program.spec.model_parallel else found[:1]
    classes, images = (sum(column) for column in zip(*ranks))
    run.log.info(
        f"new_classes: {classes:,} classes begin at the mean embedding of their images, {images:,} in all; took "
        f"{seconds:.1f} s"
    )
    without = int(is_new.sum()) - classes
    if without:
        run.log.info(f"new_classes: {without:,} new classes without images begin at random centres")
