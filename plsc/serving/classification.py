"""The best classes of an image, from the scores of a model that was exported with its classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plsc.errors import ConfigError


@dataclass(frozen=True)
class TopClasses:
    """The k classes with the highest scores for N images, best first; of equal scores the lower label first.

    label: int64 [N, k]. score: float32 [N, k], as Predictor.scores gives them. names: N lists of k, "" for a class
    without a name; None where the model has no names.
    """

    label: np.ndarray
    score: np.ndarray
    names: list[list[str]] | None


def top_classes(scores: np.ndarray, k: int, class_names: Sequence[str] | None) -> TopClasses:
    """The k (at most C) best of scores [N, C]. Raises ConfigError for k < 1."""
    if k < 1:
        raise ConfigError(f"k={k}: must be at least 1")
    if k == 1:  # argmax takes the first of equal ones
        label = scores.argmax(axis=1)[:, None].astype(np.int64)
    else:
        label = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    names = None if class_names is None else [[name_of(class_names, int(one)) for one in row] for row in label]
    return TopClasses(label, np.take_along_axis(scores, label, axis=1), names)


def name_of(class_names: Sequence[str], label: int) -> str:
    """The name of a class; "" for one without."""
    return class_names[label] if label < len(class_names) else ""
