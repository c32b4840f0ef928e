"""Verification on the ranks: every set's pictures spread over them, the figures the same on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.data import decode_image, normalise, read_sample
from plsc.engine.build import EvalProgram
from plsc.engine.data import input_names, number_of_samples, verification_files
from plsc.errors import DataError
from plsc.evaluation.bin_file import PairSet
from plsc.evaluation.embeddings import combine_flip
from plsc.evaluation.sources import load_pairs, place_of
from plsc.evaluation.spread import assemble, split
from plsc.evaluation.verification import Verification, verify
from plsc.parallel.environment import Environment
from plsc.parts import Parts

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

    def _feature(self, images: np.ndarray) -> np.ndarray:
        return self._run(self._program.main, {self._input: images}, [self._program.feature])[0]

    def _whole(self, batches: list[np.ndarray], count: int) -> np.ndarray:
        size = self._program.feature.shape[1]
        if not batches:
            return np.zeros((0, size), np.float32)
        by_rank = np.stack(batches).reshape(len(batches), self._env.world_size, self._batch, size)
        return assemble([by_rank[:, rank] for rank in range(self._env.world_size)], count)


def verification_sets(config: Config, parts: Parts) -> Iterator[PairSet | HookPairs]:
    """The sets to judge by, one after the other, so that one is in memory at a time. Raises DataError."""
    if parts.test_dataset is not None:
        yield HookPairs(parts.test_dataset, tuple(config.model.image_shape))
        return
    for name, path in zip(config.data.val_targets, verification_files(config)):
        yield load_pairs(path, name)


class HookPairs:
    """A user's ``test_dataset`` as pairs: samples 2i and 2i + 1 are pair i, "same" if their labels are equal."""

    name = "test_dataset"

    def __init__(self, dataset: Sequence, image_shape: tuple[int, int, int]):
        self._dataset, self._shape = dataset, image_shape
        labels = [int(self._sample(index)[1]) for index in range(number_of_samples(dataset))]
        self.issame = np.array([a == b for a, b in zip(labels[::2], labels[1::2])])

    def read(self, index: int) -> np.ndarray:
        """float32 [C, H, W]. Raises DataError that names the sample."""
        return self._sample(index)[0]

    def _sample(self, index: int) -> tuple[np.ndarray, np.int64]:
        return read_sample(self._dataset, index, "test_dataset", self._shape)


def verify_all(
    config: Config, parts: Parts, embedder: Embedder, look: Look | None = None
) -> dict[str, Verification]:
    """The figures of every verification set by name. ``look`` is handed each set while it is in memory."""
    results = {}
    for pairs in verification_sets(config, parts):
        read = _reader(config, pairs)
        plain, mirrored = embedder.embed(read, 2 * len(pairs.issame), flip=True)
        embeddings, xnorm = combine_flip(plain, mirrored)
        results[pairs.name] = verify(embeddings, pairs.issame, xnorm=xnorm)
        if look is not None:
            look(pairs, read, embeddings, results[pairs.name])
        del pairs, read, plain, mirrored, embeddings  # else they stay in memory while the next set is read
    return results


def _reader(config: Config, pairs: PairSet | HookPairs) -> Callable[[int], np.ndarray]:
    if isinstance(pairs, HookPairs):
        return pairs.read
    shape, std = tuple(config.model.image_shape), config.data.pixel_std

    def read(index: int) -> np.ndarray:
        name = place_of(pairs, index)
        image = normalise(decode_image(pairs.images[index], name, shape[1:]), std)
        if image.shape != shape:
            raise DataError(f"{name}: is {list(image.shape)}, must be model.image_shape {list(shape)}")
        return image

    return read


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
