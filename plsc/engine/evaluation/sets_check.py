"""Verification sets are looked at wholly before the first step: what is wrong with one is not found hours later."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from plsc.data import read_test_sample
from plsc.data.workers import call_in_fork
from plsc.engine.evaluation.best import check_metric
from plsc.engine.evaluation.data import number_of_samples
from plsc.engine.evaluation.evaluate import Unusable, picture_reader, verification_sets
from plsc.engine.run.start import Run, threads
from plsc.errors import DataError
from plsc.evaluation.bin_file import PairSet
from plsc.evaluation.spread import split

LONG_SECONDS = 1.0  # what takes longer is told
SMALL = 100  # samples


def check_sets(run: Run) -> None:
    """Decode all pictures of all sets, each rank those that it will embed. Every rank must call it.

    A user's ``test_dataset`` is read wholly where it is small; of a larger one the first and the last sample, and as
    many pairs as it takes to see both kinds. Raises DataError, or ConfigError for a ``best_metric`` that the pairs do
    not give, on every rank.
    """
    if not run.config.with_test:
        return
    began = time.monotonic()
    if run.parts.test_dataset is not None:
        run.group.agree(lambda: _look_at_own(run))
        what = "test_dataset: samples can be read, both kinds of pairs are there"
    else:
        counts = run.group.all_gather(run.group.agree(lambda: _check_files(run)))
        what = f"verification: all {sum(counts)} pictures can be decoded"
    seconds = time.monotonic() - began
    if seconds > LONG_SECONDS:
        run.journal.say(f"{what} (looked at in {seconds:.1f} s)")


def _check_files(run: Run) -> int:
    """How many pictures this rank has decoded."""
    config, env, count = run.config, run.env, 0
    for pairs in verification_sets(config, run.parts):
        if isinstance(pairs, Unusable):
            raise DataError(pairs.reason)
        _check_metric(run, pairs.name, int((~pairs.issame).sum()))
        count += _decode(pairs, run, split(2 * len(pairs.issame), env.rank, env.world_size, config.test_batch_size))
        del pairs  # else it stays in memory while the next set is read
    return count


def _decode(pairs: PairSet, run: Run, batches: tuple[np.ndarray, np.ndarray]) -> int:
    indices, real = batches
    mine, read = indices[real], picture_reader(run.config, pairs)
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
        more = f" (and {len(bad) - 1} more of the pictures of {pairs.name})" if len(bad) > 1 else ""
        raise DataError(f"{min(bad)}{more}; repair the set, take it out of data.val_targets, or set with_test: false")
    return len(mine)


def _look_at_own(run: Run) -> None:
    """Where workers are to be forked, in a process of its own: users' code may start threads, which a fork lacks."""
    if run.config.data.num_workers:
        call_in_fork(lambda: _check_own(run))
    else:
        _check_own(run)


def _check_own(run: Run) -> None:
    dataset, shape = run.parts.test_dataset, tuple(run.config.model.image_shape)
    count = number_of_samples(dataset)

    def label(index: int) -> int:
        return int(read_test_sample(dataset, index, shape)[1])

    for index in range(count) if count <= SMALL else (0, count - 1):
        label(index)
    seen: set[bool] = set()
    for pair in _spread(count // 2):
        seen.add(label(2 * pair) == label(2 * pair + 1))
        if len(seen) == 2:
            break
    else:
        kind = "same" if seen == {True} else "different"
        raise DataError(
            f"test_dataset: all {count // 2} pairs (samples 2i and 2i + 1) are {kind}; verification needs both kinds"
        )
    _check_metric(run, "test_dataset", count // 2)  # at the most: not all labels have been looked at


def _spread(count: int) -> Iterator[int]:
    """Each number below ``count`` once, the first far from each other: often one kind comes after the other."""
    stride = max(1, int(count**0.5))
    return itertools.chain.from_iterable(range(first, count, stride) for first in range(stride))


def _check_metric(run: Run, name: str, num_different: int) -> None:
    if run.config.best_metric:
        check_metric(run.config, run.parts, name, num_different)
