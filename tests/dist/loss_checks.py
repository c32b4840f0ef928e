"""What ranks trained with a loss, against the same in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def check_loss(parts: list[dict], model_parallel: bool, train: Callable, tolerance: float | None = None) -> None:
    """parts: of each rank. ``train(start, first_weight, samples)`` -> (losses, states, weight of the backbone, rows).

    float32 cosines are off by 1e-7, times the scale of 16, and a little more with each step: the default tolerance is
    1e-5 for ten steps, and in proportion for more.
    """
    pieces = parts if model_parallel else parts[:1]
    first_weight = np.concatenate([part["first_weight"] for part in pieces])
    samples = [np.sort(np.concatenate(sets)) for sets in zip(*(part["sample"] for part in pieces))]
    losses, states, weight, rows = train(parts[0]["start"], first_weight, samples)
    tolerance = tolerance or 1e-5 * max(1.0, len(losses) / 10)
    assert all(part["states"] == parts[0]["states"] for part in parts)  # to the bit
    assert parts[0]["states"][0].keys() == states[0].keys()
    for state in states[0]:
        got = [values[state] for values in parts[0]["states"]]
        # a mean of cosines has the error of a cosine, however small it is itself
        np.testing.assert_allclose(got, [values[state] for values in states], rtol=tolerance, atol=1e-6)
    for part in parts:
        np.testing.assert_allclose(part["losses"], losses, rtol=tolerance)
        got = max(part["end"].values(), key=np.ndim)
        np.testing.assert_allclose(got, weight, rtol=0, atol=tolerance * np.abs(weight).max())
    got = np.concatenate([part["weight"] for part in pieces])
    np.testing.assert_allclose(got, rows, rtol=0, atol=tolerance * np.abs(rows).max())
