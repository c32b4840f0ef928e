"""Data sets: each gives picture `index` as epoch `epoch` shall see it."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np

from plsc.data.check import check_label_list
from plsc.data.philox import NOISE, PATTERN, philox
from plsc.data.record import list_record
from plsc.data.transforms import decode_image, is_flipped, normalise, only_pictures, read_picture
from plsc.errors import ConfigError, DataError


class Dataset(Protocol):
    """What the loader needs. `sequential` data sets are read in order only, by one process."""

    image_shape: tuple[int, int, int]
    sequential: bool

    def __len__(self) -> int: ...

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]: ...


class ImageListDataset:
    """Pictures named by a label list, `path<TAB or spaces>label` per line, paths relative to root.

    root: directory. label_file: the list, relative to root (an absolute path stays). image_shape: (3, H, W), or
    (1, H, W) for grey; every picture must have these sides: nothing is resized. seed: of the flips. random_flip: mirror
    half of the pictures, others in each epoch. pixel_std: 127.5 or 128.0. Memory: the list's own bytes and 13 bytes per
    line.
    Raises DataError for a list with bad lines (see check_label_list, which also looks whether the pictures exist).
    """

    sequential = False

    def __init__(
        self,
        root: str | os.PathLike,
        label_file: str | os.PathLike,
        num_classes: int,
        image_shape: tuple[int, int, int],
        seed: int,
        random_flip: bool = True,
        pixel_std: float = 127.5,
    ) -> None:
        if len(image_shape) != 3 or only_pictures(image_shape[0]):
            raise ConfigError(f"model.image_shape={list(image_shape)}: {only_pictures(image_shape[0])}")
        self.image_shape = tuple(int(side) for side in image_shape)
        self._root = os.fsencode(root)
        self._list = check_label_list(root, label_file, num_classes, check_files=False)
        self._seed = seed
        self._random_flip = random_flip
        self._pixel_std = pixel_std

    def __len__(self) -> int:
        return len(self._list)

    def record(self, count: int) -> dict[str, Any]:
        """What there is to remember of the first ``count`` lines of the list."""
        return list_record(self._list, count)

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(image float32 of image_shape, label int64). Raises DataError that names the picture and its line."""
        image = self._picture(index)
        flip = self._random_flip and is_flipped(self._seed, epoch, index)
        return normalise(image, self._pixel_std, flip), np.int64(self._list.labels[index])

    def _picture(self, index: int) -> np.ndarray:
        name = self._list.name
        path = os.path.join(self._root, self._list.path(index))
        try:
            encoded = read_picture(path)
        except OSError as error:
            raise DataError(f"{name(index)} cannot be read: {error.strerror or error}") from error
        try:
            return decode_image(encoded, name="picture", sides=self.image_shape[1:], channels=self.image_shape[0])
        except DataError as error:
            reason = str(error).removeprefix("picture: ")
            raise DataError(f"{name(index)}: {reason}") from error


class SyntheticDataset:
    """Pictures that cost nothing and can be learned: a pattern of 8 x 8 pixel tiles per class, plus noise.

    Image i has the label i % num_classes. Pattern in [-0.75, 0.75], noise uniform in [-0.25, 0.25]: the range [-1, 1]
    of a normalised picture. The same in every epoch, on every rank; patterns depend on the seed and the class only.
    """

    sequential = False

    def __init__(self, num_images: int, num_classes: int, image_shape: tuple[int, int, int], seed: int) -> None:
        if num_images < 1 or num_classes < 1:
            raise DataError(f"synthetic data: {num_images} images of {num_classes} classes; both must be at least 1")
        self.image_shape = tuple(int(side) for side in image_shape)
        self._num_images = num_images
        self._num_classes = num_classes
        self._seed = seed

    def __len__(self) -> int:
        return self._num_images

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(image float32 [C, H, W], label int64); epoch changes nothing."""
        label = index % self._num_classes
        channels, height, width = self.image_shape
        tiles = philox(self._seed, PATTERN, label).random((channels, -(-height // 8), -(-width // 8)), dtype=np.float32)
        pattern = (tiles * 1.5 - 0.75).repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
        noise = philox(self._seed, NOISE, index).random(self.image_shape, dtype=np.float32) * 0.5 - 0.25
        return pattern + noise, np.int64(label)
