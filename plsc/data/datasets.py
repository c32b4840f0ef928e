"""Data sets: images by index, prepared for an epoch."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from plsc.data.augmentations import Augmentations
from plsc.data.image_reader import ImageReader
from plsc.data.jpeg import JpegDecoder
from plsc.data.sources import Source
from plsc.data.sources.label_list import LabelListSource
from plsc.data.sources.synthetic import SyntheticSource
from plsc.data.transforms import normalise, normalise_pixels, unsupported_channels
from plsc.errors import ConfigError, DataError, PlscError, reason_of


class Dataset(Protocol):
    """The interface of the loader. `sequential` data sets can only be read in order, by one process."""

    image_shape: tuple[int, int, int]
    sequential: bool

    def __len__(self) -> int: ...

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]: ...


@dataclass(frozen=True)
class Preparation:
    """The preprocessing of an image: decoding, resizing, augmentation and normalization.

    image_shape: (3, H, W), or (1, H, W) for grey. pixel_std: 127.5 or 128.0. resize: for images of another size, before
    augmentation (see plsc.data.resize). jpeg: a faster decoder of JPEG images (see plsc.data.jpeg).
    """

    image_shape: tuple[int, int, int]
    augmentations: Augmentations
    pixel_std: float = 127.5
    resize: str = "refuse"
    jpeg: JpegDecoder | None = None

    def prepare(self, image: bytes | np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Convert encoded bytes or uint8 pixels to float32 [C, H, W]. Raises DataError."""
        return normalise(self.pixels(image, epoch, index), self.pixel_std)

    def pixels(self, image: bytes | np.ndarray, epoch: int, index: int) -> np.ndarray:
        """The same before it is normalized: uint8 [H, W, C]."""
        pixels = ImageReader(self.image_shape, self.resize, self.jpeg)(image, name="image")
        return self.augmentations(pixels, epoch, index)


class SourceDataset:
    """The images of a source, prepared for the model.

    An invalid sample raises a DataError that begins with its name. Raises ConfigError for an image_shape that images
    cannot have.
    """

    sequential = False

    def __init__(self, source: Source, num_classes: int, preparation: Preparation, kind: str = "") -> None:
        self.image_shape = preparation.image_shape
        if len(self.image_shape) != 3 or (not source.ready and unsupported_channels(self.image_shape[0])):
            raise ConfigError(
                f"model.image_shape={list(self.image_shape)}: {unsupported_channels(self.image_shape[0])}"
            )
        self._source = source
        self._length = count_images(source)
        self._num_classes = num_classes
        self._preparation = preparation
        self._kind = kind
        self._opened_by = -1  # process id

    def __len__(self) -> int:
        return self._length

    @property
    def class_names(self) -> Sequence[str] | None:
        """The names of the classes, by label, where the source has them."""
        return self._source.class_names

    @property
    def source(self) -> Source:
        """The source of the images."""
        return self._source

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""
        return self._num_classes

    @property
    def preparation(self) -> Preparation:
        """The preprocessing of the images."""
        return self._preparation

    def record(self, count: int | None = None) -> dict[str, Any]:
        """The record of the data, or of the first ``count`` images (see plsc.data.record)."""
        found = self._source.record() if count is None else self._source.record(count)
        return {"kind": self._kind, "images": self._length, "num_classes": self._num_classes, **found}

    def without_augmentation(self) -> SourceDataset:
        """The same images without augmentation."""
        plain = replace(self._preparation, augmentations=Augmentations([], 0))
        return SourceDataset(self._source, self._num_classes, plain, self._kind)

    def read(self, index: int) -> tuple[Any, int]:
        """(image as the source gives it, label), both checked; opens the source once in a process. Raises DataError."""
        source, name = self._source, self._source.name
        try:
            if self._opened_by != os.getpid():
                source.open_files()
                self._opened_by = os.getpid()
            image, label = source.read(index)
        except PlscError:
            raise
        except Exception as error:
            raise DataError(f"{name(index)}: reading it raised {reason_of(error)}") from error
        if isinstance(label, bool) or not isinstance(label, numbers.Integral) or not 0 <= label < self._num_classes:
            raise DataError(
                f"{name(index)}: label {label!r:.40} is not in 0..{self._num_classes - 1} (classifier.num_classes)"
            )
        if source.ready:
            return self._check_input(image, name(index)), int(label)
        if not isinstance(image, (bytes, bytearray, memoryview, np.ndarray)):
            raise DataError(f"{name(index)}: an image must be bytes or an array uint8, not {type(image).__name__}")
        return image, int(label)

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(image float32 of image_shape, label int64)."""
        if self._source.ready:
            image, label = self.read(index)
            return image, np.int64(label)
        pixels, number = self.get_pixels(index, epoch)
        return normalise_pixels(pixels, self._preparation.pixel_std), number

    def get_pixels(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        """(pixels uint8 of image_shape, before they are normalized; label int64), of a source that is not ``ready``."""
        image, label = self.read(index)
        try:
            return self._preparation.pixels(image, epoch, index).transpose(2, 0, 1), np.int64(label)
        except DataError as error:
            reason = str(error).removeprefix("image: ")
            raise DataError(f"{self._source.name(index)}: {reason}") from error

    def _check_input(self, image: Any, name: str) -> np.ndarray:
        """Check an input that needs no preparation."""
        if not isinstance(image, np.ndarray) or image.dtype != np.float32 or image.shape != self.image_shape:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise DataError(f"{name}: is {found}, must be an array float32 {list(self.image_shape)}")
        return image


def count_images(source: Source) -> int:
    """The number of images. Raises DataError if there are none or ``__len__`` fails."""
    try:
        found: Any = len(source)
    except PlscError:
        raise
    except Exception as error:
        raise DataError(f"{type(source).__name__} has no usable __len__: {reason_of(error)}") from error
    if found < 1:
        raise DataError(f"{source.place} has no images")
    return found


class ImageListDataset(SourceDataset):
    """Images named by a label list, `path<TAB or spaces>label` per line, paths relative to root.

    root: directory. label_file: the list, relative to root (an absolute path stays). image_shape: (3, H, W), or
    (1, H, W) for grey. seed: of the flips. random_flip: mirror half of the images, different ones in each epoch.
    pixel_std: 127.5 or 128.0. Raises DataError for a list with bad lines (see check_label_list, which can also check
    that files exist).
    """

    def __init__(
        self,
        root: str | os.PathLike,
        label_file: str | os.PathLike,
        num_classes: int,
        image_shape: Sequence[int],
        seed: int,
        random_flip: bool = True,
        pixel_std: float = 127.5,
    ) -> None:
        source = LabelListSource(root, label_file, num_classes)
        augmentations = Augmentations(["flip"] if random_flip else [], seed)
        super().__init__(
            source, num_classes, Preparation(as_image_shape(image_shape), augmentations, pixel_std), "list"
        )
        source.check(check_files=False)


class SyntheticDataset(SourceDataset):
    """Made-up images that can be learned (see plsc.data.sources.synthetic)."""

    def __init__(self, num_images: int, num_classes: int, image_shape: Sequence[int], seed: int) -> None:
        source = SyntheticSource(num_classes, image_shape, seed, num_images)
        super().__init__(
            source, num_classes, Preparation(as_image_shape(image_shape), Augmentations([], seed)), "synthetic"
        )


def as_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) as plain numbers."""
    channels, height, width = (int(side) for side in image_shape)
    return channels, height, width
