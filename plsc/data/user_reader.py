"""The adapter of `train_reader`, PLSC 0.1's readers, to the loader."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np

from plsc.data.user_dataset import SeededGenerators, check_sample
from plsc.errors import DataError, reason_of

MAX_COUNTED = 1_000_000  # samples; the limit of counting
PROGRESS_SECONDS = 10
_END = object()


class UserReader:
    """A callable that returns a generator of preprocessed samples (image, label), or of batches of them.

    A batch is a list of samples, as from paddle.batch, or a pair of arrays (images [B, C, H, W], labels [B]). Batches
    are split: a step has `train_batch_size` * `accumulate` samples for any batch size of the reader.

    Each call is one epoch and must yield the same samples in the same order on every rank (plsc.data.sample_agreement
    checks this). The order is kept: with SampleOrder(shuffle=False) a step takes the next G samples, and each rank its
    B of them; at its end the reader is called again for the next epoch. Each rank iterates over all samples and drops
    those of other ranks, in the training process or in one worker. A run resumed inside an epoch skips forward. While
    the reader runs, Python's and NumPy's global generators are seeded by (seed, epoch), so random augmentation is the
    same on every rank.
    num_samples: samples of one epoch; None counts them by one pass over the reader, which must end, with progress
    messages to ``log``. Raises DataError that names the sample if it is invalid, for an exception of the reader, and
    for a different count.
    """

    sequential = True

    def __init__(
        self,
        reader: Callable[[], Iterator],
        num_classes: int,
        image_shape: tuple[int, ...],
        num_samples: int | None = None,
        seed: int = 0,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        if not callable(reader):
            raise DataError(f"train_reader must be a function that returns a generator, not {type(reader).__name__}")
        self.image_shape = tuple(int(side) for side in image_shape)
        self._reader = reader
        self._num_classes = num_classes
        self._seed = seed
        self._items: Iterator = iter(())
        self._batch: Iterator = iter(())
        self._seeds = SeededGenerators(seed, 0, 0)
        self._epoch = -1
        self._next = 0
        self._length = self._count(log) if num_samples is None else num_samples

    def __len__(self) -> int:
        return self._length

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(image float32 of image_shape, label int64). Going forward skips samples, going back restarts the reader."""
        if epoch != self._epoch or index < self._next:
            if epoch == self._epoch + 1:
                self._finish_epoch()
            self._start(epoch)
        while self._next < index:
            self._require_next()
        name = f"train_reader: sample {index} of epoch {epoch}"
        return check_sample(self._require_next(), name, self._num_classes, self.image_shape)

    def first(self, count: int) -> list[tuple[np.ndarray, np.int64]]:
        """The first samples of epoch 0, at most ``count``, by a separate call of the reader."""
        aside = UserReader(self._reader, self._num_classes, self.image_shape, count, self._seed)
        aside._start(0)
        samples = itertools.takewhile(lambda sample: sample is not _END, (aside._next_sample() for _ in range(count)))
        names = (f"train_reader: sample {index} of epoch 0" for index in range(count))
        return [check_sample(s, name, self._num_classes, self.image_shape) for s, name in zip(samples, names)]

    def _start(self, epoch: int) -> None:
        self._seeds = SeededGenerators(self._seed, max(epoch, 0), 0)
        try:
            with self._seeds:
                self._items = iter(self._reader())
        except Exception as error:
            raise DataError(f"train_reader() raised {reason_of(error)}") from error
        self._batch = iter(())
        self._epoch, self._next = epoch, 0

    def _require_next(self) -> object:
        sample = self._next_sample()
        if sample is _END:
            raise DataError(
                f"train_reader ended after {self._next:,} samples of epoch {self._epoch}, but {self._length:,} were "
                "expected: data.train_image_num must be the number of samples of one call"
            )
        return sample

    def _finish_epoch(self) -> None:
        """Finish the current epoch. Raises DataError if the reader yields more samples than expected."""
        if self._epoch < 0:
            return
        while self._next < self._length:
            self._require_next()
        if self._next_sample() is not _END:
            raise DataError(
                f"train_reader yields more than {self._length:,} samples per call: "
                "data.train_image_num must be their number"
            )

    def _next_sample(self) -> object:
        """The next sample, or _END."""
        try:
            sample = next(self._batch, _END)
            while sample is _END:
                with self._seeds:
                    item = next(self._items, _END)
                if item is _END:
                    return _END
                self._batch = iter(unbatch(item, self.image_shape))
                sample = next(self._batch, _END)
        except Exception as error:
            name = f"train_reader: sample {self._next} of epoch {self._epoch}"
            raise DataError(f"{name} raised {reason_of(error)}") from error
        self._next += 1
        return sample

    def _count(self, log: Callable[[str], None]) -> int:
        self._start(-1)
        last_log = time.monotonic()
        while self._next_sample() is not _END:
            if self._next > MAX_COUNTED:
                raise DataError(
                    f"train_reader: yielded {MAX_COUNTED:,} samples in one call without an end, so counting stops; "
                    "set data.train_image_num to the number of samples of an epoch, and end each call after so many"
                )
            if time.monotonic() - last_log > PROGRESS_SECONDS:
                last_log = time.monotonic()
                log(
                    f"train_reader: counting its samples, {self._next:,} so far; set data.train_image_num to skip "
                    "this, which a reader without an end requires"
                )
        return self._next


def unbatch(item: object, image_shape: tuple[int, ...]) -> list:
    """The samples of an item of a reader: the item itself, or those of a batch. Invalid items are checked later."""
    if not isinstance(item, (list, tuple)) or not item:
        return [item]
    if len(item) == 2 and isinstance(item[0], np.ndarray) and item[0].shape[1:] == tuple(image_shape):
        images, labels = item[0], np.asarray(item[1])
        # one image of shape [C, H, W] has three axes, several have four
        if images.ndim == len(image_shape) + 1 and labels.size == len(images):
            return list(zip(images, labels.reshape(-1)))
    # (image, label) with an image of nested lists is not a batch, as its label is not a sample
    is_batch = all(isinstance(one, (list, tuple)) and len(one) == 2 and _is_label(one[1]) for one in item)
    return list(item) if is_batch else [item]


def _is_label(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) == 1 and _is_label(value[0])
    return isinstance(value, (int, float, np.generic)) or isinstance(value, np.ndarray) and value.size == 1
