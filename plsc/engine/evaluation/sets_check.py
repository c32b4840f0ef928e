"""Checks all verification sets before the first step, so that no error in one is found hours later."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from plsc.data import read_test_sample
from plsc.data.workers import call_in_fork
from plsc.engine.evaluation.best import check_best_metric, parse_best_metric
from plsc.engine.evaluation.sets import (
    TestSet,
    UnreadableSet,
    UserTestSet,
    image_reader,
    kinds_of,
    labels_of,
    num_images,
    split_supported,
    verification_sets,
)
from plsc.engine.run.start import Run, threads
from plsc.errors import DataError
from plsc.evaluation.identity_sets import AnySet
from plsc.evaluation.metric import PAIRS, Metric, dry_run, make_metrics, supported_numbers
from plsc.evaluation.spread import split

LONG_SECONDS = 1.0  # a check that takes longer is logged
SMALL = 100  # samples


def check_sets(run: Run) -> None:
    """Decode all images of all sets; each rank decodes those that it will embed. Every rank must call it.

    A small ``test_dataset`` of a user is read completely; of a larger one the first and the last sample, and pairs
    until both kinds were seen. On every rank raises DataError, or ConfigError for a ``best_metric`` that the pairs do
    not support.
    """
    if not run.config.with_test:
        return
    began = time.monotonic()
    if run.user_objects.test_dataset is not None:
        lines = run.group.agree(lambda: _check_user_set(run))
        what = "test_dataset: samples can be read, the metrics can be computed"
    else:
        count, lines = run.group.agree(lambda: _check_files(run))
        what = f"verification: all {sum(run.group.all_gather(count))} images can be decoded"
    for line in lines:
        run.log.info(line)
    seconds = time.monotonic() - began
    if seconds > LONG_SECONDS:
        run.log.info(f"{what} (checked in {seconds:.1f} s)")


def _check_files(run: Run) -> tuple[int, list[str]]:
    """How many images this rank has decoded, and which metrics will not be computed and why."""
    config, env, count, lines = run.config, run.env, 0, []
    metrics = make_metrics(config)
    for found in verification_sets(config, run.user_objects, kinds_of(metrics)):
        if isinstance(found, UnreadableSet):
            raise DataError(found.reason)
        usable, skipped = split_supported(metrics, found)
        lines += _skipped_lines(found, skipped)
        _check_goal(run, found, usable)
        _try_user_metrics(run, found, usable)
        count += _decode(found, run, split(num_images(found), env.rank, env.world_size, config.test_batch_size))
        del found  # else it stays in memory while the next set is read
    return count, lines


def _skipped_lines(found: TestSet, skipped: Mapping[str, str]) -> list[str]:
    return [f"metrics: [{found.name}] {metric} is not computed: {reason}" for metric, reason in skipped.items()]


def _check_goal(run: Run, found: TestSet, metrics: Sequence[Metric], all_known: bool = True) -> None:
    """Raise ConfigError where the labels of a set do not support ``best_metric``. all_known: ``metrics`` are all that
    will be computed."""
    if not run.config.best_metric:
        return
    goal = parse_best_metric(run.config, run.user_objects)
    if goal.name == found.name and (all_known or goal.metric in [metric.name for metric in metrics]):
        given = [number for metric in metrics for number in supported_numbers(metric, labels_of(found, metric.needs))]
        check_best_metric(run.config, goal, given)


def _try_user_metrics(run: Run, found: TestSet, metrics: Sequence[Metric]) -> None:
    """Compute a user's metrics once, on rank 0, from random embeddings, to find errors in them now."""
    theirs = [metric for metric in metrics if not type(metric).__module__.startswith("plsc.")]
    for metric in theirs if run.env.rank == 0 else []:
        try:
            dry_run(metric, labels_of(found, metric.needs), run.config.model.embedding_size)
        except DataError as error:
            raise DataError(f"{found.name}: {error}; it was tried with random embeddings") from None


def _decode(found: AnySet, run: Run, batches: tuple[np.ndarray, np.ndarray]) -> int:
    indices, real = batches
    mine, read = indices[real], image_reader(run.config, found)
    bad: list[str] = []

    def look(index: int) -> None:
        try:
            read(int(index))
        except DataError as error:
            bad.append(str(error))

    with ThreadPoolExecutor(threads(run.config, run.env)) as pool:  # Pillow decodes without Python's lock
        for _ in pool.map(look, mine):
            pass
    if bad:
        more = f" (and {len(bad) - 1} more of the images of {found.name})" if len(bad) > 1 else ""
        raise DataError(f"{min(bad)}{more}; repair the set, take it out of data.val_targets, or set with_test: false")
    return len(mine)


def _check_user_set(run: Run) -> list[str]:
    """In a subprocess where workers will be forked: users' code may start threads, which a fork does not copy."""
    return call_in_fork(lambda: _check_user_set_here(run)) if run.config.data.num_workers else _check_user_set_here(run)


def _check_user_set_here(run: Run) -> list[str]:
    """Which metrics will not be computed and why."""
    dataset, shape = run.user_objects.test_dataset, tuple(run.config.model.image_shape)
    metrics = make_metrics(run.config)
    found = UserTestSet(dataset, shape, kinds_of(metrics))

    def label(index: int) -> int:
        return int(read_test_sample(dataset, index, shape)[1])

    whole = found.count <= SMALL
    labels = [label(index) for index in (range(found.count) if whole else (0, found.count - 1))]
    if PAIRS in kinds_of(metrics):
        _require_both_kinds(found.count // 2, label)
    if whole:
        found.set_labels(np.array(labels))
        usable, skipped = split_supported(metrics, found)
    else:  # not all labels were read: at most this many pairs are different
        found.issame, found.identities = np.zeros(found.count // 2, bool), np.arange(found.count) // 4
        usable, skipped = metrics, {}
    _check_goal(run, found, [metric for metric in usable if whole or metric.needs == PAIRS], whole)
    found.issame = np.arange(found.count // 2) % 2 == 0 if not whole else found.issame
    _try_user_metrics(run, found, usable)
    return _skipped_lines(found, skipped)


def _require_both_kinds(pairs: int, label: Callable[[int], int]) -> None:
    """Raise DataError where all pairs are same, or all are different; reads pairs until both kinds were seen."""
    seen: set[bool] = set()
    for pair in _spread(pairs):
        seen.add(label(2 * pair) == label(2 * pair + 1))
        if len(seen) == 2:
            return
    kind = "same" if seen == {True} else "different"
    raise DataError(
        f"test_dataset: all {pairs} pairs (samples 2i and 2i + 1) are {kind}; verification needs both kinds"
    )


def _spread(count: int) -> Iterator[int]:
    """Each number below ``count`` once, widely spaced at first: often one kind follows the other."""
    stride = max(1, int(count**0.5))
    return itertools.chain.from_iterable(range(first, count, stride) for first in range(stride))
