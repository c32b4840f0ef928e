"""The order of the samples: held against a plain concatenation of permutations."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.data import GlobalBatchSampler, SampleOrder
from plsc.data.philox import SHUFFLE, philox
from plsc.errors import DataError


def _union(num_samples: int, batch_size: int, world_size: int, step: int) -> tuple[list, list]:
    ranks = range(world_size)
    parts = [GlobalBatchSampler(num_samples, batch_size, r, world_size, seed=5).indices(step) for r in ranks]
    return [e for part in parts for e in part[0]], [i for part in parts for i in part[1]]


@pytest.mark.parametrize("num_samples", [12, 13, 17, 29])
@pytest.mark.parametrize("batch_size, world_size", [(12, 1), (6, 2), (4, 3), (3, 4)])
def test_the_ranks_together_see_the_stream_of_one_rank(num_samples: int, batch_size: int, world_size: int) -> None:
    epochs = 5
    stream = [(e, i) for e in range(epochs) for i in philox(5, SHUFFLE, e).permutation(num_samples)]
    for step in range(epochs * num_samples // 12):
        epoch, index = _union(num_samples, batch_size, world_size, step)
        assert list(zip(epoch, index)) == stream[step * 12 : (step + 1) * 12]


def test_every_sample_is_used_once_per_epoch() -> None:
    sampler = GlobalBatchSampler(10, 4, 0, 1, seed=1)
    seen = [pair for step in range(5) for pair in zip(*sampler.indices(step))]  # 20 = two epochs
    assert sorted(seen) == [(e, i) for e in range(2) for i in range(10)]


def test_order_differs_between_epochs_and_seeds() -> None:
    def order(seed: int, step: int) -> list[int]:
        return list(GlobalBatchSampler(50, 50, 0, 1, seed).indices(step)[1])

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert order(1, 1) != order(2, 0)
    assert order(1, 0) != list(range(50))


def test_any_step_can_come_first_and_steps_may_go_back() -> None:
    straight = GlobalBatchSampler(11, 3, 1, 2, seed=9)
    expected = [straight.indices(step) for step in range(12)]
    jumping = GlobalBatchSampler(11, 3, 1, 2, seed=9)
    for step in (7, 2, 11, 0, 5):
        np.testing.assert_array_equal(jumping.indices(step), expected[step])
        assert len(jumping._permutations) <= 2  # memory: 8 bytes per sample each


def test_without_shuffle_the_order_is_kept() -> None:
    sampler = GlobalBatchSampler(5, 2, 1, 2, seed=0, order=SampleOrder(shuffle=False))
    epoch, index = sampler.indices(1)  # positions 6 and 7 of the stream
    assert (list(epoch), list(index)) == ([1, 1], [1, 2])


def test_steps_and_epochs() -> None:
    sampler = GlobalBatchSampler(10, 2, 0, 2, seed=0)
    assert [sampler.steps(n) for n in (0, 1, 2, 3)] == [0, 3, 5, 8]  # ceil(10 n / 4)
    assert [sampler.epoch_of(s) for s in range(6)] == [0, 0, 0, 1, 1, 2]  # position 4 s


@pytest.mark.parametrize(
    "num_samples, batch_size, world_size, text",
    [(0, 1, 1, "empty"), (7, 4, 2, "at most 3"), (3, 1, 4, "fewer than the 4 ranks")],
)
def test_too_little_data_is_an_error(num_samples: int, batch_size: int, world_size: int, text: str) -> None:
    with pytest.raises(DataError, match=text):
        GlobalBatchSampler(num_samples, batch_size, 0, world_size, seed=0)
    GlobalBatchSampler(8, 4, 0, 2, seed=0)  # exactly one batch is enough


def test_skipped_samples_belong_to_no_step() -> None:
    stream = [index for step in range(12) for index in GlobalBatchSampler(11, 1, 0, 1, seed=9).indices(step)[1]]
    skipping = [
        GlobalBatchSampler(11, 2, rank, 2, seed=9, order=SampleOrder(skip=3)).indices(1)[1] for rank in range(2)
    ]
    assert list(np.concatenate(skipping)) == stream[7:11]


def plain_windows(count: int, window: int, seed: int, epoch: int) -> list[int]:
    """The same by plain lists: runs in a random order, 32 of them a window, whose samples are shuffled."""
    run = window // 32
    runs = [list(range(first, min(first + run, count))) for first in range(0, count, run)]
    order = [runs[number] for number in philox(seed, SHUFFLE, epoch).permutation(len(runs))]
    found = []
    for number in range(0, len(order), 32):
        samples = np.array([sample for one in order[number : number + 32] for sample in one])
        found += samples[philox(seed, SHUFFLE, epoch, number // 32 + 1).permutation(len(samples))].tolist()
    return found


@pytest.mark.parametrize("count, window", [(500, 64), (501, 64), (4000, 320), (100, 32), (70, 640), (1000, 999)])
def test_windows_against_plain_lists(count: int, window: int) -> None:
    for epoch in range(3):
        sampler = GlobalBatchSampler(count, 10, 0, 1, 5, SampleOrder(window=window))
        stream = [index for step in range(-(-3 * count // 10)) for index in sampler.indices(step)[1].tolist()]
        mine = stream[epoch * count : (epoch + 1) * count]
        assert mine == plain_windows(count, window, 5, epoch) and sorted(mine) == list(range(count))


def test_a_window_is_read_while_little_else_is() -> None:
    """Of 320 of 32,000 samples: 32 runs of ten neighbours each, and they come from everywhere."""
    sampler = GlobalBatchSampler(32_000, 320, 0, 1, 5, SampleOrder(window=320))
    for step in (0, 7, 99):
        index = np.sort(sampler.indices(step)[1])
        assert np.count_nonzero(np.diff(index) == 1) >= 32 * 9 and index.max() - index.min() > 20_000
    spread = GlobalBatchSampler(32_000, 320, 0, 1, 5).indices(0)[1]
    assert np.count_nonzero(np.diff(np.sort(spread)) == 1) < 30


def test_windows_do_not_depend_on_the_ranks() -> None:
    order = SampleOrder(window=64)
    whole = GlobalBatchSampler(500, 12, 0, 1, 5, order).indices(60)
    parts = [GlobalBatchSampler(500, 4, rank, 3, 5, order).indices(60) for rank in range(3)]
    for which in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[which] for part in parts]), whole[which])


def test_the_order_without_a_window_is_that_of_earlier_versions() -> None:
    """A run that was saved by an earlier version goes on in the same order."""
    for count in (1, 7, 1000):
        sampler = GlobalBatchSampler(count, count, 0, 1, 9)
        np.testing.assert_array_equal(sampler.indices(3)[1], philox(9, SHUFFLE, 3).permutation(count))
