"""The file of classifier.class_weights: what is read, what is refused in one line, and that a run uses it."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.engine.training.class_weights import ClassWeights
from plsc.errors import DataError


def test_a_factor_for_each_label(tmp_path):
    path = tmp_path / "factors.txt"
    path.write_text("1\n0.5\n2e0\n")
    weights = ClassWeights.read(str(path), 3)
    np.testing.assert_array_equal(weights.of(np.array([2, 0, 0, 1])), np.array([2.0, 1.0, 1.0, 0.5], np.float32))
    assert weights.of(np.array([[7], [-1]])).shape == (2,)  # no classes: the loss is NaN by another rule


@pytest.mark.parametrize("text, message", [
    ("1\n2\n", "has 2 lines; it must have one for each class, classifier.num_classes=3"),
    ("1\n2\n3\n4\n", "has 4 lines; it must have one for each class, classifier.num_classes=3"),
    ("1\nx\n3\n", "line 2: 'x' must be a number above 0"),
    ("1\n0\n3\n", "line 2: '0' must be a number above 0"),
    ("1\nnan\n3\n", "line 2: 'nan' must be a number above 0"),
    ("1\n\n3\n", "line 2: '' must be a number above 0"),
    (None, "cannot be read"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path, text, message):
    path = tmp_path / "factors.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        ClassWeights.read(str(path), 3)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert f"classifier.class_weights={str(path)!r}" in str(caught.value)
