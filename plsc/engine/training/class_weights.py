"""The factors of the classes in the loss, from a file (classifier.class_weights)."""

from __future__ import annotations

import hashlib

import numpy as np

from plsc.engine.run import consistency
from plsc.engine.run.start import Run
from plsc.errors import DataError
from plsc.files import safe_open


class ClassWeights:
    """``values`` [C] float32, by label."""

    def __init__(self, values: np.ndarray):
        self._values = values

    def of(self, labels: np.ndarray) -> np.ndarray:
        """[B] float32. A label that is no class, which makes the loss NaN, has some factor."""
        return self._values[np.clip(np.asarray(labels).reshape(-1), 0, len(self._values) - 1)]

    @classmethod
    def read(cls, path: str, num_classes: int) -> ClassWeights:
        """Raises DataError for a file that cannot be read, another number of lines, and what is no number above 0."""
        values = np.empty(num_classes, np.float32)
        count = 0
        where = f"classifier.class_weights={path!r}"
        try:
            with safe_open.open_text(path, safe_open.LIST, "utf-8-sig") as file:
                for count, line in enumerate(file, start=1):
                    if count <= num_classes:
                        values[count - 1] = _factor(f"{where}, line {count}", line)
        except OSError as error:
            raise DataError(f"{where}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: cannot be read: {error}") from None
        if count != num_classes:
            raise DataError(
                f"{where}: has {count:,} lines; it must have one for each class, classifier.num_classes={num_classes}"
            )
        return cls(values)

    @property
    def digest(self) -> str:
        """Equal for equal factors."""
        return hashlib.sha256(self._values.tobytes()).hexdigest()[:16]


def read_class_weights(run: Run) -> ClassWeights | None:
    """Those of the settings; None if there are none. Raises a PlscError, on every rank, for a wrong file, and where the
    ranks read different ones."""
    section = run.config.classifier
    if section.class_weights is None:
        return None
    weights = run.group.agree(lambda: ClassWeights.read(section.class_weights, section.num_classes))
    fact = {f"classifier.class_weights={section.class_weights!r}": weights.digest}
    consistency.require_same(run.group, DataError, fact)
    return weights


def _factor(where: str, line: str) -> float:
    try:
        value = float(line)
    except ValueError:
        value = 0.0
    if not 1e-30 < value < 1e30:
        raise DataError(f"{where}: {line.strip()[:40]!r} must be a number above 0")
    return value
