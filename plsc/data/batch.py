"""One batch: its samples into arrays, or all that is wrong with them in one error."""

from __future__ import annotations

import numpy as np

from plsc.data.datasets import Dataset
from plsc.errors import DataError

_MAX_LISTED = 10  # samples that an error names; the others are counted


class SamplesError(DataError):
    """Several samples that cannot be used. texts: what is wrong with each."""

    def __init__(self, texts: list[str]) -> None:
        more = f"; and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
        super().__init__(f"{len(texts)} samples cannot be used: {'; '.join(texts[:_MAX_LISTED])}{more}")
        self.texts = texts

    def __reduce__(self) -> tuple:
        return SamplesError, (self.texts,)  # an error of a worker travels to the process that trains


def fill_batch(dataset: Dataset, epoch: np.ndarray, index: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
    """Write the samples (epoch [B], index [B]) into images [B,3,H,W] and labels [B].

    Raises DataError for all samples of the batch that cannot be used; of a data set that is read in order for the
    first alone, because nothing can be said of what comes behind it.
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
    """One error for several, each sample named once."""
    texts = [text for error in problems for text in (error.texts if isinstance(error, SamplesError) else [str(error)])]
    texts = list(dict.fromkeys(texts))
    return problems[0] if len(texts) == 1 else SamplesError(texts)
