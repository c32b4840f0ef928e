"""Evaluation on all ranks: each set's images are distributed over them, the metrics are equal on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.evaluation.sets import (
    TestSet,
    UnreadableSet,
    UserTestSet,
    describe_error,
    embedded_views,
    kinds_of,
    num_images,
    reader,
    split_supported,
    verification_sets,
)
from plsc.engine.program.build import EvalProgram
from plsc.engine.program.inputs import input_names
from plsc.errors import DataError
from plsc.evaluation.metric import Computed, Embedded, Metric, compute_metric, make_metrics
from plsc.evaluation.results import SetResult
from plsc.evaluation.spread import assemble, split
from plsc.parallel.environment import Environment
from plsc.parallel.ranks import OneRank, Ranks

RunProgram = Callable[[Any, dict, list], list]
# on_set(result, set, read, views by kind); read(i) returns image i of the set as float32 [C, H, W]
OnSet = Callable[[SetResult, TestSet, Callable[[int], np.ndarray], Mapping[str, Embedded]], None]


class Embedder:
    """Images to features by an evaluation program, in batches distributed over the ranks.

    ``run(program, feed, fetches)`` executes; every rank must call ``embed`` with the same images.
    """

    def __init__(self, config: Config, env: Environment, program: EvalProgram, run: RunProgram):
        self._config, self._env, self._program, self._run = config, env, program, run
        self._batch = config.test_batch_size
        self._input = input_names(config)[0]

    def embed(self, read: Callable[[int], np.ndarray], count: int, flip: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """(features [count, E], those of the mirrored images or None). ``read(i)`` returns float32 [C, H, W]."""
        indices, _ = split(count, self._env.rank, self._env.world_size, self._batch)
        plain, mirrored = [], []
        for batch in indices:
            images = np.stack([read(int(index)) for index in batch])
            plain.append(self._feature(images))
            if flip:
                mirrored.append(self._feature(np.ascontiguousarray(images[:, :, :, ::-1])))
        return self._whole(plain, count), self._whole(mirrored, count) if flip else None

    def in_order(self, of_ranks: list[list[int]], count: int) -> np.ndarray:
        """A number for each image, int64 [count], from those of each rank in its reading order."""
        return assemble([np.array(numbers, np.int64).reshape(-1, self._batch) for numbers in of_ranks], count)

    def _feature(self, images: np.ndarray) -> np.ndarray:
        return self._run(self._program.main, {self._input: images}, [self._program.feature])[0]

    def _whole(self, batches: list[np.ndarray], count: int) -> np.ndarray:
        size = self._program.feature.shape[1]
        if not batches:
            return np.zeros((0, size), np.float32)
        by_rank = np.stack(batches).reshape(len(batches), self._env.world_size, self._batch, size)
        return assemble([by_rank[:, rank] for rank in range(self._env.world_size)], count)


def verify_all(
    config: Config,
    user_objects: UserObjects,
    embedder: Embedder,
    on_set: OnSet | None = None,
    group: Ranks | None = None,
    failures: dict[str, str] | None = None,
) -> dict[str, SetResult]:
    """The metrics of every set, by the name of the set. ``on_set`` is called with each set while it is in memory.

    An error in a set or a metric on one rank counts on all ranks of ``group``: it goes into ``failures`` under the name
    of the set, or of set and metric, and the rest is evaluated; without ``failures`` it is raised as a DataError.
    """
    results: dict[str, SetResult] = {}
    metrics = make_metrics(config)
    evaluator = _Evaluator(config, metrics, embedder, OneRank() if group is None else group)
    for found in verification_sets(config, user_objects, kinds_of(metrics)):
        try:
            one, problems = evaluator(found, on_set), evaluator.problems
        except DataError as error:
            one, problems = None, {found.name: str(error)}
        if problems and failures is None:
            raise DataError(next(iter(problems.values())))
        if problems:
            failures.update(problems)
        if one is not None:
            results[one.name] = one
        del found  # free it before the next one is read
    return results


class _Evaluator:
    """Evaluates one set after the other. ``problems``: {set, metric: error} of the last one."""

    def __init__(self, config: Config, metrics: Sequence[Metric], embedder: Embedder, group: Ranks):
        self._config, self._metrics, self._embedder, self._group = config, metrics, embedder, group
        self.problems: dict[str, str] = {}

    def __call__(self, found: TestSet | UnreadableSet, on_set: OnSet | None) -> SetResult | None:
        """None where every metric failed. Raises DataError, on every rank, for an error in the set itself."""
        self.problems = {}
        self._agree(found.reason if isinstance(found, UnreadableSet) else None)
        self._agree(_count_mismatch(self._group, found))
        read = reader(self._config, found)
        usable, skipped, given = self._embedded(found, read)
        one = SetResult(found.name, skipped=skipped)
        for metric in usable:
            problem, outcome = _compute(metric, given[metric.needs], self._group)
            if problem:
                self.problems[f"{found.name}, {metric.name}"] = f"{found.name}: {problem}"
            else:
                one.computed[metric.name] = outcome
        if on_set is not None and one.computed:
            on_set(one, found, read, given)
        return one if one.computed else None

    def _embedded(
        self, found: TestSet, read: Callable[[int], np.ndarray]
    ) -> tuple[list[Metric], dict[str, str], dict[str, Embedded]]:
        """(the metrics that the set supports, why others are skipped, their inputs by kind)."""
        careful = _SafeReader(read, tuple(self._config.model.image_shape))
        plain, mirrored = self._embedder.embed(careful, num_images(found), flip=True)
        self._agree(careful.problem)
        problem, usable, skipped, given = None, [], {}, {}
        try:
            if isinstance(found, UserTestSet):
                found.set_labels(self._embedder.in_order(self._group.all_gather(found.labels), found.count))
            usable, skipped = split_supported(self._metrics, found)
            given = embedded_views(found, kinds_of(usable), plain, mirrored)
        except DataError as error:
            problem = f"{found.name}: {str(error).removeprefix(f'{found.name}: ')}"
        self._agree(problem)
        return usable, skipped, given

    def _agree(self, own: str | None) -> None:
        """Raise the first problem of any rank, the same on all."""
        problem = _first_problem(self._group, own)
        if problem:
            raise DataError(problem)


def _compute(metric: Metric, data: Embedded, group: Ranks) -> tuple[str | None, Computed | None]:
    """(error, the metric of a set): computed on rank 0, the same on all."""
    own, problem = None, None
    if metric.on_every_rank or group.rank == 0:
        try:
            own = compute_metric(metric, data)
        except DataError as error:
            problem = str(error)
    if metric.on_every_rank:
        return _first_problem(group, problem), own
    told = None if own is None else [own.values, own.text, own.record]
    problem, told = group.all_gather([problem, told])[0]
    return problem, own if own is not None or problem else Computed(*told)


class _SafeReader:
    """``read`` that never raises: after the first error it returns blank images, so that this rank still takes part in
    the collectives. ``problem``: the error."""

    def __init__(self, read: Callable[[int], np.ndarray], shape: tuple[int, ...]):
        self._read, self._shape = read, shape
        self.problem: str | None = None

    def __call__(self, index: int) -> np.ndarray:
        if self.problem is None:
            try:
                return self._read(index)
            except Exception as error:  # a user's data set may raise anything
                self.problem = describe_error(error)
        return np.zeros(self._shape, np.float32)


def _count_mismatch(group: Ranks, found: TestSet) -> str | None:
    counts = group.all_gather(num_images(found))
    same = len(set(counts)) == 1  # otherwise the ranks would not run the same number of batches
    return None if same else f"{found.name}: the ranks see {counts} images; give all ranks the same files"


def _first_problem(group: Ranks, own: str | None) -> str | None:
    """The first problem of any rank, the same on all."""
    for rank, problem in enumerate(group.all_gather(own)):
        if problem is not None:
            return problem if group.world_size == 1 else f"rank {rank}: {problem}"
    return None
