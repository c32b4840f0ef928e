"""A user's own data, `train_dataset` or `train_reader`, in the form that the loader reads, each sample checked."""

from __future__ import annotations

import contextlib
import random
import traceback
from collections.abc import Callable, Iterator

import numpy as np

from plsc.data.philox import HOOK, philox
from plsc.errors import DataError, PlscError

_END = object()


class IndexedHook:
    """`train_dataset`: any object with __len__ and __getitem__(i) -> (image, label), a paddle.io.Dataset too.

    image: float array of image_shape, already normalised; becomes float32. label: an integer (or an array of one) in
    [0, num_classes); becomes int64. Before each __getitem__ Python's and NumPy's global generators are seeded from
    (seed, epoch, index), so that random augmentation differs in every epoch and does not depend on ranks or workers.
    Raises DataError that names the index for a sample of another form and for an exception of the user's code.
    """

    sequential = False

    def __init__(self, dataset: object, num_classes: int, image_shape: tuple[int, int, int], seed: int) -> None:
        self.image_shape = tuple(int(side) for side in image_shape)
        self._dataset = dataset
        self._num_classes = num_classes
        self._seed = seed
        if not hasattr(dataset, "__getitem__"):
            raise DataError(f"train_dataset: {type(dataset).__name__} has no __getitem__(index) -> (image, label)")
        try:
            self._length = len(dataset)
        except Exception as error:  # paddle.io.Dataset has a __len__ that only raises
            kind = type(dataset).__name__
            raise DataError(f"train_dataset: {kind} has no usable __len__: {_reason(error)}") from error

    def __len__(self) -> int:
        return self._length

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(image float32 of image_shape, label int64)."""
        with _seeded(self._seed, epoch, index):
            return read_sample(self._dataset, index, "train_dataset", self.image_shape, self._num_classes)


class ReaderHook:
    """`train_reader` of PLSC 0.1: a callable that returns a generator of samples (image, label), already transformed.

    Each call is one epoch and must give the same samples in the same order on every rank. The order is kept: used with
    GlobalBatchSampler(shuffle=False), a step takes the next G samples, and each rank its B of these; at the end the
    reader is called again for the next epoch. Each rank runs through the whole reader and drops what others take, so
    it is read by the training process or one worker, never by more. A run resumed inside an epoch skips to its place.
    num_samples: samples of one epoch; None counts them by running through the reader once (it must end).
    Raises DataError that names the sample for another form, an exception of the reader, or another count.
    """

    sequential = True

    def __init__(
        self,
        reader: Callable[[], Iterator],
        num_classes: int,
        image_shape: tuple[int, int, int],
        num_samples: int | None = None,
    ) -> None:
        if not callable(reader):
            raise DataError(f"train_reader must be a function that returns a generator, not {type(reader).__name__}")
        self.image_shape = tuple(int(side) for side in image_shape)
        self._reader = reader
        self._num_classes = num_classes
        self._samples: Iterator = iter(())
        self._epoch = -1
        self._next = 0
        self._length = self._count() if num_samples is None else num_samples

    def __len__(self) -> int:
        return self._length

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(image float32 of image_shape, label int64); going forward is cheap, going back starts the reader anew."""
        if epoch != self._epoch or index < self._next:
            if epoch == self._epoch + 1:
                self._finish()
            self._start(epoch)
        while self._next < index:
            self._take()
        name = f"train_reader: sample {index} of epoch {epoch}"
        return _checked(self._take(), name, self._num_classes, self.image_shape)

    def _start(self, epoch: int) -> None:
        try:
            self._samples = iter(self._reader())
        except Exception as error:
            raise DataError(f"train_reader() raised {_reason(error)}") from error
        self._epoch, self._next = epoch, 0

    def _take(self) -> object:
        sample = self._advance()
        if sample is _END:
            raise DataError(
                f"train_reader ended after {self._next} samples of epoch {self._epoch}, but {self._length} were "
                "expected: data.train_image_num must be the number of samples of one call"
            )
        return sample

    def _finish(self) -> None:
        """Run the current epoch to its end: a reader that gives more than it should is an error, not a silent loss."""
        if self._epoch < 0:
            return
        while self._next < self._length:
            self._take()
        if self._advance() is not _END:
            raise DataError(
                f"train_reader gives more than {self._length} samples per call: "
                "data.train_image_num must be their number"
            )

    def _advance(self) -> object:
        try:
            sample = next(self._samples, _END)
        except Exception as error:
            name = f"train_reader: sample {self._next} of epoch {self._epoch}"
            raise DataError(f"{name} raised {_reason(error)}") from error
        self._next += 1 if sample is not _END else 0
        return sample

    def _count(self) -> int:
        self._start(-1)
        while self._advance() is not _END:
            pass
        return self._next


def read_sample(
    dataset: object, index: int, name: str, image_shape: tuple[int, ...], num_classes: int | None = None
) -> tuple[np.ndarray, np.int64]:
    """(image float32 of image_shape, label int64) of a user's ``dataset[index]``; any label where num_classes is None.

    Raises DataError that names the sample for one of another form and for an exception of the user's code.
    """
    try:
        sample = dataset[int(index)]
    except PlscError:
        raise
    except Exception as error:
        raise DataError(f"{name}[{index}] raised {_reason(error)}") from error
    return _checked(sample, f"{name}[{index}]", num_classes, image_shape)


def _checked(
    sample: object, name: str, num_classes: int | None, image_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.int64]:
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise DataError(f"{name} must be a pair (image, label), not {type(sample).__name__}")
    try:
        image, label = np.asarray(sample[0]), np.asarray(sample[1])
    except Exception as error:
        raise DataError(f"{name} cannot be read as arrays: {_reason(error)}") from error
    if image.shape != image_shape:
        raise DataError(f"{name}: image has shape {list(image.shape)}, but model.image_shape is {list(image_shape)}")
    if image.dtype.kind != "f":
        raise DataError(f"{name}: image is {image.dtype}, it must be float32 and normalised, (x - 127.5) / 127.5")
    image = image.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        raise DataError(f"{name}: image has values that are not finite in float32")
    if label.size != 1 or label.dtype.kind not in "iu":
        raise DataError(f"{name}: label must be one integer, not {label.dtype} of shape {list(label.shape)}")
    if num_classes is not None and not 0 <= label.item() < num_classes:
        raise DataError(f"{name}: label {label.item()} is not in 0..{num_classes - 1} (classifier.num_classes)")
    return image, np.int64(label.item())


@contextlib.contextmanager
def _seeded(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seed the global generators for one sample, then put back what the training process had."""
    states = random.getstate(), np.random.get_state()
    word = int(philox(seed, HOOK, epoch, index).integers(2**32))
    random.seed(word)
    np.random.seed(word)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _reason(error: Exception) -> str:
    """`KeyError: 'x' (my_data.py:12)`, on one line: the user's own code is where to look."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"
