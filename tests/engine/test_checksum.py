"""The checksum by which ranks compare their weights."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.engine.program.session import _without_negative_zero


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "float16"])
def test_both_zeros_are_one_number_and_all_others_are_themselves(dtype):
    """Paddle draws zeros of either sign, on one rank this and on another that: no reason to refuse a run."""
    values = np.array([[-0.0, 1.5], [0.0, -2.0]]).astype(dtype)
    assert _without_negative_zero(values).tobytes() == np.array([[0.0, 1.5], [0.0, -2.0]]).astype(dtype).tobytes()
    assert _without_negative_zero(values).dtype == dtype
