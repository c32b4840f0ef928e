"""Batches in the order of the steps, read in this process or by worker processes."""

from __future__ import annotations

from types import TracebackType

import numpy as np

from plsc.data.batch import BatchFormat, fill_batch
from plsc.data.datasets import Dataset
from plsc.data.listed import BatchSampler
from plsc.data.workers import LoaderOptions, WorkerPool
from plsc.errors import DataError

_DEFAULTS = LoaderOptions()


class Loader:
    """Iterates over (step, images [B,C,H,W], labels [B] int64) for first_step <= step < last_step, in order.

    Images are float32, the input of the model, or with options.pixels uint8, which the program normalizes.

    The caller owns the arrays. num_workers=0 reads in this process; with N worker processes, worker w reads the steps
    first_step + w, + N, ... into shared memory. The result does not depend on the number of workers.
    A sequential data set (train_reader) has at most one worker. Workers are forked in the constructor: make the loader
    early, before Paddle's executor has started its threads, and in a thread that outlives it (they end with the thread
    that made them).

    Use it as a context manager or call close(), which ends the workers. They also end with this process, however it
    ends, and free their memory; nothing remains in /dev/shm.
    Raises DataError: for options.pixels and a data set that has none; an error of the data set, in the step where it
    happened, also in a worker; and for a worker that died, or that was too slow for options.stop_waiting.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: BatchSampler,
        num_workers: int,
        first_step: int,
        last_step: int,
        options: LoaderOptions = _DEFAULTS,
    ) -> None:
        if num_workers < 0 or options.prefetch < 1 or first_step < 0:
            raise ValueError(
                f"invalid: num_workers={num_workers}, prefetch={options.prefetch}, first_step={first_step}"
            )
        self._stored, self._pixels = BatchFormat.of(dataset), options.pixels
        if options.pixels and self._stored.pixel_std is None:
            raise DataError(
                f"the training program takes pixels, but {type(dataset).__name__} gives inputs of the model: a source "
                "must say `ready = True` in its class, where it can be seen before it is opened"
            )
        self._dataset = dataset
        self._sampler = sampler
        self._step = first_step
        self._last_step = last_step
        self._closed = False
        self._pool: WorkerPool | None = None
        workers = min(num_workers, max(last_step - first_step, 0), 1 if dataset.sequential else num_workers)
        if workers:
            self._pool = WorkerPool(dataset, sampler, workers, range(first_step, last_step), options)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> tuple[int, np.ndarray, np.ndarray]:
        if self._closed and self._step < self._last_step:
            raise ValueError("the loader is closed")
        if self._step >= self._last_step:
            self.close()
            raise StopIteration
        try:
            images, labels = self._pool.get(self._step) if self._pool else self._read(self._step)
        except BaseException:
            self.close()
            raise
        step, self._step = self._step, self._step + 1
        return step, images, labels

    def _read(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, index = self._sampler.indices(step)
        stored = self._stored
        images = np.empty((len(index), *stored.image_shape), stored.dtype)
        labels = np.empty(len(index), dtype=np.int64)
        fill_batch(self._dataset, epoch, index, images, labels)
        return (images if self._pixels else stored.take(images)), labels

    def close(self) -> None:
        """End the workers and free their memory. May be called again."""
        self._closed = True
        if self._pool:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
