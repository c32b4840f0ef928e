"""Verification on the ranks: every set's pictures spread over them, the figures the same on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.config.parts import Parts
from plsc.data import decode_image, normalise, read_test_sample
from plsc.engine.evaluation.data import input_names, number_of_samples, verification_files
from plsc.engine.program.build import EvalProgram
from plsc.errors import DataError, PlscError
from plsc.evaluation.bin_file import PairSet
from plsc.evaluation.embeddings import combine_flip
from plsc.evaluation.sources import load_pairs, place_of
from plsc.evaluation.spread import assemble, split
from plsc.evaluation.verification import Verification, verify
from plsc.parallel.environment import Environment
from plsc.parallel.ranks import OneRank, Ranks

RunProgram = Callable[[Any, dict, list], list]
# look(pairs, read, embeddings float64 [2P, E] of length 1, result); read(i) gives picture i as float32 [C, H, W]
Look = Callable[["PairSet | HookPairs", Callable[[int], np.ndarray], np.ndarray, Verification], None]


class Embedder:
    """Pictures to features by an evaluation program, in batches spread over the ranks.

    ``run(program, feed, fetches)`` executes; every rank must call ``embed`` with the same pictures.
    """

    def __init__(self, config: Config, env: Environment, program: EvalProgram, run: RunProgram):
        self._config, self._env, self._program, self._run = config, env, program, run
        self._batch = config.test_batch_size
        self._input = input_names(config)[0]

    def embed(self, read: Callable[[int], np.ndarray], count: int, flip: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """(features [count, E], those of the mirrored pictures or None). ``read(i)`` gives float32 [C, H, W]."""
        indices, _ = split(count, self._env.rank, self._env.world_size, self._batch)
        plain, mirrored = [], []
        for batch in indices:
            images = np.stack([read(int(index)) for index in batch])
            plain.append(self._feature(images))
            if flip:
                mirrored.append(self._feature(np.ascontiguousarray(images[:, :, :, ::-1])))
        return self._whole(plain, count), self._whole(mirrored, count) if flip else None

    def in_order(self, of_ranks: list[list[int]], count: int) -> np.ndarray:
        """A number for each picture, int64 [count], from those of each rank in the order in which it read them."""
        return assemble([np.array(numbers, np.int64).reshape(-1, self._batch) for numbers in of_ranks], count)

    def _feature(self, images: np.ndarray) -> np.ndarray:
        return self._run(self._program.main, {self._input: images}, [self._program.feature])[0]

    def _whole(self, batches: list[np.ndarray], count: int) -> np.ndarray:
        size = self._program.feature.shape[1]
        if not batches:
            return np.zeros((0, size), np.float32)
        by_rank = np.stack(batches).reshape(len(batches), self._env.world_size, self._batch, size)
        return assemble([by_rank[:, rank] for rank in range(self._env.world_size)], count)


@dataclass(frozen=True)
class Unusable:
    """A set that cannot be read on this rank, and why."""

    name: str
    reason: str


def verification_sets(config: Config, parts: Parts) -> Iterator[PairSet | HookPairs | Unusable]:
    """The sets to judge by, one after the other, so that one is in memory at a time."""
    if parts.test_dataset is not None:
        shape = tuple(config.model.image_shape)
        yield _opened(HookPairs.name, lambda: HookPairs(parts.test_dataset, shape))
        return
    for name in config.data.val_targets:
        yield _opened(name, lambda: load_pairs(verification_files(config, [name])[0], name))  # noqa: B023


def _opened(name: str, load: Callable[[], PairSet | HookPairs]) -> PairSet | HookPairs | Unusable:
    try:
        return load()
    except Exception as error:  # a user's data set may raise anything
        return Unusable(name, describe_error(error))


class HookPairs:
    """A user's ``test_dataset`` as pairs: samples 2i and 2i + 1 are pair i, "same" if their labels are equal.

    A sample is read once, so that picture and label belong together: ``issame`` is known after ``settle``.
    """

    name = "test_dataset"

    def __init__(self, dataset: Sequence, image_shape: tuple[int, int, int]):
        self._dataset, self._shape = dataset, image_shape
        self.issame = np.zeros(number_of_samples(dataset) // 2, bool)
        self.labels: list[int] = []  # of the samples in the order in which this rank has read them

    def read(self, index: int) -> np.ndarray:
        """float32 [C, H, W]. Raises DataError that names the sample."""
        image, label = read_test_sample(self._dataset, index, self._shape)
        self.labels.append(int(label))
        return image

    def settle(self, labels: np.ndarray) -> None:
        """The labels of all samples, in order. Raises DataError where they make pairs of one kind only."""
        self.issame = labels[::2] == labels[1::2]
        same = int(self.issame.sum())
        if same in (0, len(self.issame)):
            raise DataError(
                f"test_dataset: has {same} same and {len(self.issame) - same} different pairs; it needs both kinds "
                "(samples 2i and 2i + 1 are a pair, same if their labels are equal)"
            )


def verify_all(
    config: Config,
    parts: Parts,
    embedder: Embedder,
    look: Look | None = None,
    group: Ranks | None = None,
    failures: dict[str, str] | None = None,
) -> dict[str, Verification]:
    """The figures of every verification set by name. ``look`` is handed each set while it is in memory.

    What is wrong with a set on one rank counts on all ranks of ``group``: it goes into ``failures`` under the name of
    the set, and the other sets are judged; without ``failures`` it is raised as a DataError.
    """
    results, group = {}, OneRank() if group is None else group
    for pairs in verification_sets(config, parts):
        problem = _opening_problem(group, pairs)
        if not problem:
            read = _reader(config, pairs)
            careful = _KeepsStep(read, tuple(config.model.image_shape))
            plain, mirrored = embedder.embed(careful, 2 * len(pairs.issame), flip=True)
            problem = _problem(group, careful.problem)
        if not problem:
            if isinstance(pairs, HookPairs):
                _settle(pairs, embedder, group.all_gather(pairs.labels), careful)
            embeddings, result = _judged(pairs, plain, mirrored, careful, config.protocol)
            problem = _problem(group, careful.problem)
            del plain, mirrored, careful
        if problem:
            if failures is None:
                raise DataError(problem)
            failures[pairs.name] = problem
            continue
        results[pairs.name] = result
        if look is not None:
            look(pairs, read, embeddings, result)
        del pairs, read, embeddings  # else they stay in memory while the next set is read
    return results


class _KeepsStep:
    """``read`` that never fails: after the first failure it gives empty pictures, for what the other ranks compute
    together with this one. ``problem``: what it was."""

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


def _settle(pairs: HookPairs, embedder: Embedder, labels: list[list[int]], read: _KeepsStep) -> None:
    try:
        pairs.settle(embedder.in_order(labels, 2 * len(pairs.issame)))
    except DataError as error:
        read.problem = str(error)


def _judged(pairs: PairSet | HookPairs, plain, mirrored, read: _KeepsStep, protocol: str) -> tuple:
    """(embeddings, figures) where all went well; what did not is the problem of ``read``."""
    if read.problem is None:
        try:
            embeddings, xnorm = combine_flip(plain, mirrored)
            return embeddings, verify(embeddings, pairs.issame, xnorm=xnorm, protocol=protocol)
        except DataError as error:
            read.problem = f"{pairs.name}: {error}"
    return None, None


def _opening_problem(group: Ranks, pairs: PairSet | HookPairs | Unusable) -> str | None:
    if problem := _problem(group, pairs.reason if isinstance(pairs, Unusable) else None):
        return problem
    counts = group.all_gather(len(pairs.issame))
    same = len(set(counts)) == 1  # else the ranks would not make the same number of batches
    return None if same else f"{pairs.name}: the ranks see {counts} pairs; give all of them the same files"


def _problem(group: Ranks, own: str | None) -> str | None:
    """The first problem of any rank, the same on all."""
    for rank, problem in enumerate(group.all_gather(own)):
        if problem is not None:
            return problem if group.world_size == 1 else f"rank {rank}: {problem}"
    return None


def _reader(config: Config, pairs: PairSet | HookPairs) -> Callable[[int], np.ndarray]:
    return pairs.read if isinstance(pairs, HookPairs) else picture_reader(config, pairs)


def picture_reader(config: Config, pairs: PairSet) -> Callable[[int], np.ndarray]:
    """``read(index)``: a picture of a set as the net takes it, float32 [C, H, W]. Raises DataError that names it."""
    shape, std = tuple(config.model.image_shape), config.data.pixel_std

    def read(index: int) -> np.ndarray:
        name = place_of(pairs, index)
        image = normalise(decode_image(pairs.images[index], name, shape[1:], shape[0]), std)
        if image.shape != shape:
            raise DataError(f"{name}: is {list(image.shape)}, must be model.image_shape {list(shape)}")
        return image

    return read


def describe_error(error: Exception) -> str:
    """One line; the kind too where it is none of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PlscError) else f"{type(error).__name__}: {text}"


def describe(name: str, result: Verification) -> str:
    """One line that can be grepped."""
    tar = ", ".join(f"TAR@FAR={far:g}: {tar:.5f}" for far, tar in result.tar_at_far.items() if tar is not None)
    return (
        f"[{name}] Accuracy-Flip: {result.accuracy:.5f}+-{result.accuracy_std:.5f}, XNorm: {result.xnorm:.5f}, "
        f"AUC: {result.auc:.5f}, EER: {result.eer:.5f}" + (f", {tar}" if tar else "")
    )


def as_scalars(result: Verification) -> dict[str, Any]:
    """What is written to scalars.jsonl."""
    return {
        "accuracy": result.accuracy,
        "accuracy_std": result.accuracy_std,
        "threshold": result.threshold,
        "auc": result.auc,
        "eer": result.eer,
        "xnorm": result.xnorm,
        "tar_at_far": {f"{far:g}": tar for far, tar in result.tar_at_far.items()},
        "roc": {"fpr": [round(float(x), 6) for x in result.fpr], "tpr": [round(float(x), 6) for x in result.tpr]},
        "num_same": result.num_same,
        "num_different": result.num_different,
    }
