"""Users' data sets with an index, `train_dataset` and `test_dataset`, with checked and seeded samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from plsc.data.philox import TEST, USER_DATA, philox
from plsc.errors import DataError, PlscError, reason_of


class UserDataset:
    """`train_dataset`: any object with __len__ and __getitem__(i) -> (image, label), such as a paddle.io.Dataset.

    image: a normalized float array of image_shape, converted to float32. label: an integer (or an array of one) in
    [0, num_classes), converted to int64. Before each __getitem__, Python's and NumPy's global generators are seeded by
    (seed, epoch, index), so random augmentation differs between epochs and does not depend on ranks or workers.
    Raises DataError that names the index for an invalid sample and for an exception of the user's code.
    """

    sequential = False

    def __init__(self, dataset: Any, num_classes: int, image_shape: tuple[int, int, int], seed: int) -> None:
        self.image_shape = tuple(int(side) for side in image_shape)
        self._dataset = dataset
        self._num_classes = num_classes
        self._seed = seed
        if not hasattr(dataset, "__getitem__"):
            raise DataError(f"train_dataset: {type(dataset).__name__} has no __getitem__(index) -> (image, label)")
        try:
            self._length = len(dataset)
        except Exception as error:  # paddle.io.Dataset has a __len__ that always raises
            kind = type(dataset).__name__
            raise DataError(f"train_dataset: {kind} has no usable __len__: {reason_of(error)}") from error

    def __len__(self) -> int:
        return self._length

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(image float32 of image_shape, label int64)."""
        with SeededGenerators(self._seed, epoch, index):
            return read_sample(self._dataset, index, "train_dataset", self.image_shape, self._num_classes)

    def first(self, count: int) -> list[tuple[np.ndarray, np.int64]]:
        """The first samples of epoch 0, at most ``count``."""
        return [self.get(index, 0) for index in range(min(count, self._length))]


def read_sample(
    dataset: Any, index: int, name: str, image_shape: tuple[int, ...], num_classes: int | None = None
) -> tuple[np.ndarray, np.int64]:
    """(image float32 of image_shape, label int64) of a user's ``dataset[index]``; any label if num_classes is None.

    Raises DataError that names the sample if it is invalid, or if the user's code raises.
    """
    return check_sample(_get_item(dataset, index, name), f"{name}[{index}]", num_classes, image_shape)


def _get_item(dataset: Any, index: int, name: str) -> Any:
    try:
        return dataset[int(index)]
    except PlscError:
        raise
    except Exception as error:
        raise DataError(f"{name}[{index}] raised {reason_of(error)}") from error


def check_sample(
    sample: object, name: str, num_classes: int | None, image_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.int64]:
    """Convert a user's sample to (image float32 of image_shape, label int64). Raises DataError."""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise DataError(f"{name} must be a pair (image, label), not {_describe_type(sample)}")
    try:
        image, label = np.asarray(sample[0]), np.asarray(sample[1])
    except Exception as error:
        raise DataError(f"{name} cannot be read as arrays: {reason_of(error)}") from error
    if image.shape != image_shape:
        raise DataError(f"{name}: image has shape {list(image.shape)}, but model.image_shape is {list(image_shape)}")
    if image.dtype.kind != "f":
        raise DataError(f"{name}: image is {image.dtype}, must be float32 and normalized, such as (x - 127.5) / 127.5")
    image = image.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        raise DataError(f"{name}: image has values that are not finite in float32")
    if label.size != 1 or label.dtype.kind not in "iu":
        raise DataError(f"{name}: label must be one integer, not {label.dtype} of shape {list(label.shape)}")
    if num_classes is not None and not 0 <= label.item() < num_classes:
        raise DataError(f"{name}: label {label.item()} is not in 0..{num_classes - 1} (classifier.num_classes)")
    return image, np.int64(label.item())


def read_test_sample(dataset: Any, index: int, image_shape: tuple[int, ...]) -> tuple[np.ndarray, np.int64]:
    """``test_dataset[index]`` as in `read_sample`, seeded by the index only, so it is the same in every evaluation."""
    with SeededGenerators(0, 0, index, TEST):
        return read_sample(dataset, index, "test_dataset", image_shape)


def read_test_image(dataset: Any, index: int, image_shape: Sequence[int]) -> np.ndarray:
    """The image of ``test_dataset[index]``, float32 of image_shape, with any label; seeded in the same way."""
    with SeededGenerators(0, 0, index, TEST):
        sample = _get_item(dataset, index, "test_dataset")
        try:
            image = np.asarray(sample[0], np.float32)
        except Exception as error:
            raise DataError(f"test_dataset[{index}] must be (image, label), not {_describe_type(sample)}") from error
    if image.shape != tuple(image_shape):
        raise DataError(f"test_dataset[{index}]: is {list(image.shape)}, must be model.image_shape {list(image_shape)}")
    return image


class SeededGenerators:
    """Context in which Python's and NumPy's global generators are seeded by (seed, epoch, index). Outside they are
    restored. When entered again, they continue."""

    def __init__(self, seed: int, epoch: int, index: int, purpose: int = USER_DATA):
        self._word: int | None = int(philox(seed, purpose, epoch, index).integers(2**32))
        self._states: tuple = ()

    def __enter__(self) -> None:
        outside = random.getstate(), np.random.get_state()
        if self._word is None:
            random.setstate(self._states[0])
            np.random.set_state(self._states[1])
        else:
            random.seed(self._word)
            np.random.seed(self._word)
        self._word, self._states = None, outside

    def __exit__(self, *error: object) -> None:
        inside = random.getstate(), np.random.get_state()
        random.setstate(self._states[0])
        np.random.set_state(self._states[1])
        self._states = inside


def _describe_type(value: object) -> str:
    count = f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else ""
    return type(value).__name__ + count
