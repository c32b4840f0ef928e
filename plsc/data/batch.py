"""Fills the arrays of a batch, or reports all invalid samples in one error."""

from __future__ import annotations

import numpy as np

from plsc.data.datasets import Dataset
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


def fill_batch(dataset: Dataset, epoch: np.ndarray, index: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
    """Write the samples (epoch [B], index [B]) into images [B,3,H,W] and labels [B].

    Raises one DataError for all invalid samples of the batch; for a sequential data set only for the first, as later
    samples cannot be read.
    """
    problems: list[DataError] = []
    for row in range(len(index)):
        try:
            images[row], labels[row] = dataset.get(int(index[row]), int(epoch[row]))
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
