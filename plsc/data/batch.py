"""Fills the arrays of a batch, or reports all invalid samples in one error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from plsc.data.datasets import Dataset, SourceDataset
from plsc.data.transforms import normalise_pixels
from plsc.errors import DataError

_MAX_LISTED = 10  # samples listed in an error; the others are counted


class SamplesError(DataError):
    """Several invalid samples. texts: the error of each."""

    def __init__(self, texts: list[str]) -> None:
        more = f"; and {len(texts) - _MAX_LISTED:,} more" if len(texts) > _MAX_LISTED else ""
        super().__init__(f"{len(texts):,} samples cannot be used: {'; '.join(texts[:_MAX_LISTED])}{more}")
        self.texts = texts

    def __reduce__(self) -> tuple:
        return SamplesError, (self.texts,)  # for pickling, as workers send errors to the training process


@dataclass(frozen=True)
class BatchFormat:
    """How the images of a batch are stored before the batch is taken.

    pixel_std: pixels, uint8, a quarter of the memory; they are normalized by the training program, or all at once when
    the batch is taken, with the same result to the bit. None: inputs of the model, float32, as a ready source or a
    user's data set gives them.
    """

    image_shape: tuple[int, ...]
    pixel_std: float | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> BatchFormat:
        """The format for the samples of a data set."""
        if isinstance(dataset, SourceDataset) and not dataset.source.ready:
            return cls(dataset.image_shape, dataset.preparation.pixel_std)
        return cls(dataset.image_shape)

    @property
    def dtype(self) -> np.dtype:
        """That of the stored images."""
        return np.dtype(np.float32 if self.pixel_std is None else np.uint8)

    def num_bytes(self, batch_size: int) -> int:
        """Of the stored images of a batch."""
        return batch_size * math.prod(self.image_shape) * self.dtype.itemsize

    def take(self, images: np.ndarray, pixels: bool = False) -> np.ndarray:
        """The stored images [B, C, H, W] as a new array: float32, the input of the model, or for ``pixels`` as they are
        stored."""
        if pixels or self.pixel_std is None:
            return images.copy()
        return normalise_pixels(images, self.pixel_std)


def fill_batch(dataset: Dataset, epoch: np.ndarray, index: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
    """Write the samples (epoch [B], index [B]) into images [B,C,H,W], as BatchFormat.of(dataset), and labels [B].

    Raises one DataError for all invalid samples of the batch; for a sequential data set only for the first, as later
    samples cannot be read.
    """
    problems: list[DataError] = []
    as_pixels = isinstance(dataset, SourceDataset) and not dataset.source.ready
    get = dataset.get_pixels if as_pixels else dataset.get  # type: ignore[attr-defined]
    for row in range(len(index)):
        try:
            images[row], labels[row] = get(int(index[row]), int(epoch[row]))
        except DataError as error:
            problems.append(error)
            if dataset.sequential:
                break
    if problems:
        raise merge_errors(problems)


def merge_errors(problems: list[DataError]) -> DataError:
    """Merge several errors into one that lists each sample once."""
    texts = [text for error in problems for text in (error.texts if isinstance(error, SamplesError) else [str(error)])]
    texts = list(dict.fromkeys(texts))
    return problems[0] if len(texts) == 1 else SamplesError(texts)
