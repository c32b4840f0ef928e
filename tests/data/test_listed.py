"""Chosen samples in batches of all ranks."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.data.listed import ListedSampler, images_of


@pytest.mark.parametrize("count, batch_size, world_size", [(1, 4, 1), (8, 4, 2), (9, 4, 2), (23, 3, 4), (5, 1, 1)])
def test_each_sample_once_and_in_order_on_any_number_of_ranks(count, batch_size, world_size):
    chosen = np.arange(count, dtype=np.uint32) * 3 + 7
    samplers = [ListedSampler(chosen, batch_size, rank, world_size) for rank in range(world_size)]
    found = []
    for step in range(samplers[0].steps):
        batches = [sampler.indices(step) for sampler in samplers]
        assert all((epoch == 0).all() and index.shape == (batch_size,) for epoch, index in batches)
        found += np.concatenate([index for _, index in batches]).tolist()[: samplers[0].real(step)]
    assert found == chosen.tolist() and len(samplers[0]) == count


def test_of_no_samples_there_is_no_step():
    assert ListedSampler(np.empty(0, np.int64), 4, 0, 2).steps == 0


def test_images_of_chosen_classes_leave_out_what_is_no_class():
    chosen = np.array([False, True, True])
    assert images_of(np.array([2, 0, 1, 3, -1, 1]), chosen).tolist() == [0, 2, 5]
    assert images_of(np.empty(0, np.int64), chosen).tolist() == []
