"""Spreading a set over ranks and putting it together again."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.errors import ConfigError, DataError
from plsc.evaluation.spread import assemble, split


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
@pytest.mark.parametrize("num_images", [0, 1, 3, 7, 8, 9, 16, 17, 40, 41])
def test_every_image_once_and_back_in_order(num_images, world_size, batch_size):
    shares = [split(num_images, rank, world_size, batch_size) for rank in range(world_size)]
    steps = -(-num_images // (world_size * batch_size))
    seen = []
    for indices, real in shares:
        assert indices.shape == real.shape == (steps, batch_size)
        assert indices.dtype == np.int64 and real.dtype == bool
        assert ((indices >= 0) & (indices < num_images)).all()  # padding can be decoded too
        seen += indices[real].tolist()
    assert sorted(seen) == list(range(num_images))
    # what a model would make of them: rows that name their image, garbage where there is padding
    parts = [np.where(real, indices, -1)[..., None] * np.array([1.0, 10.0]) for indices, real in shares]
    assert np.array_equal(assemble(parts, num_images), np.arange(num_images)[:, None] * np.array([1.0, 10.0]))


def test_example_of_the_docstring():
    (first, first_real), (second, second_real) = split(5, 0, 2, 2), split(5, 1, 2, 2)
    assert (first.tolist(), second.tolist()) == ([[0, 1], [4, 4]], [[2, 3], [4, 4]])
    assert first_real.tolist() == [[True, True], [True, False]]
    assert second_real.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("wrong", [(-1, 0, 1, 1), (5, 0, 0, 1), (5, 2, 2, 1), (5, -1, 2, 1), (5, 0, 1, 0)])
def test_wrong_arguments(wrong):
    with pytest.raises(ConfigError, match="evaluation: num_images"):
        split(*wrong)


@pytest.mark.parametrize(
    ("shapes", "num_images"),
    [
        ([(2, 4, 3), (2, 4, 2)], 10),
        ([(2, 4, 3), (1, 4, 3)], 10),
        ([], 0),
        ([(8,)], 8),
        ([(2, 4, 3)], 9),  # too few places
        ([(2, 4, 3)], 4),  # a batch too many
        ([(0, 4, 3)], 1),
        ([(2, 0, 3)], 1),
    ],
)
def test_parts_that_do_not_fit(shapes, num_images):
    with pytest.raises(DataError, match="evaluation"):
        assemble([np.zeros(shape) for shape in shapes], num_images)
