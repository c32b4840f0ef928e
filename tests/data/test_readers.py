"""`train_reader`: batches as PLSC 0.1 had them, counting, random numbers, and readers that differ among ranks."""

from __future__ import annotations

import itertools
import os
import random

import numpy as np
import pytest

from plsc.data import UserDataset, UserReader, sample_agreement, user_reader
from plsc.data.user_reader import unbatch
from plsc.data.workers import call_in_fork
from plsc.errors import DataError, PlscError

SHAPE = (3, 2, 4)


def sample(number: int) -> tuple[np.ndarray, int]:
    return np.full(SHAPE, number, dtype=np.float32), number % 4


def batches(count: int, size: int, form=list):
    """As paddle.batch: lists of samples, the last one may be shorter."""

    def read():
        numbers = iter(range(count))
        while batch := [sample(number) for number in itertools.islice(numbers, size)]:
            yield form(batch)

    return read


def arrays(batch: list) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([image for image, _ in batch]), np.array([label for _, label in batch])[:, None]


@pytest.mark.parametrize("form", [list, tuple, arrays, lambda batch: [list(one) for one in batch]])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 20])
@pytest.mark.parametrize("count", [None, 10])
def test_batches_are_taken_apart(form, size, count) -> None:
    """Of any size, in any form; over the end of an epoch and from within one."""
    hook = UserReader(batches(10, size, form), 4, SHAPE, count)
    assert len(hook) == 10
    for position in [*range(3, 25), 4]:
        image, label = hook.get(position % 10, position // 10)
        assert image[0, 0, 0] == position % 10 and label == position % 10 % 4 and image.shape == SHAPE


def test_what_is_one_sample_and_what_are_several() -> None:
    image, label = sample(1)
    for one in ((image, label), [image, label], (image.tolist(), [1]), (image, np.array([1])), (image, [1])):
        assert len(unbatch(one, SHAPE)) == 1 and unbatch(one, SHAPE)[0] is one
    two = np.zeros((2, 2, 4), np.float32)  # two channels, as nested lists: a list of two lists
    assert len(unbatch((two.tolist(), 1), two.shape)) == 1
    for strange in (None, 3, [], [image], {}, "text", (image, [1, 2])):
        assert len(unbatch(strange, SHAPE)) == 1


@pytest.mark.parametrize("strange, text", [
    ([sample(1), None], "must be a pair .image, label., not list of 2|cannot be read|label must be"),
    ([sample(1)[0]] * 3, "must be a pair .image, label., not list of 3"),
    ([], "must be a pair .image, label., not list of 0"),
    ([sample(1), sample(9)[::-1]], "sample 0|sample 1"),
])  # fmt: skip
def test_strange_batches_are_named(strange, text) -> None:
    hook = UserReader(lambda: iter([strange]), 4, SHAPE, 2)
    with pytest.raises(DataError, match=text) as caught:
        for index in range(2):
            hook.get(index, 0)
    assert "train_reader: sample" in str(caught.value)


def test_a_reader_without_an_end_is_told_and_refused(monkeypatch) -> None:
    monkeypatch.setattr(user_reader, "PROGRESS_SECONDS", 0)
    monkeypatch.setattr(user_reader, "MAX_COUNTED", 5)
    told: list[str] = []
    with pytest.raises(DataError, match="yielded 5 samples in one call without an end.*set data.train_image_num"):
        UserReader(lambda: (sample(n) for n in itertools.count()), 4, SHAPE, log=told.append)
    assert len(told) == 5 and "counting its samples, 2 so far; set data.train_image_num to skip this" in told[1]
    assert len(UserReader(batches(5, 2), 4, SHAPE)) == 5


def drawing():
    """Augments as users do, between other draws of the process."""
    for number in range(6):
        yield np.full(SHAPE, number + random.random() + np.random.rand(), np.float32), number % 4


def test_random_numbers_of_a_reader_depend_on_seed_and_epoch_only() -> None:
    def read(seed: int, epochs: list[int], start: int = 0, between=lambda: None) -> list[float]:
        hook, found = UserReader(drawing, 4, SHAPE, 6, seed), []
        for epoch in epochs:
            for index in range(start, 6):
                found.append(float(hook.get(index, epoch)[0][0, 0, 0]))
                between()
        return found

    first = read(1, [0, 1])
    random.seed(5)
    assert read(1, [0, 1], between=lambda: (random.random(), np.random.rand())) == first
    random.seed(5)
    expected = random.random()
    random.seed(5)
    assert read(1, [1], start=3) == first[9:]  # resumed inside the second epoch
    assert random.random() == expected
    assert first[:6] != first[6:] and read(2, [0]) != first[:6]


def fingerprints(*data) -> list[dict]:
    return [sample_agreement.sample_fingerprint(one) for one in data]


def part(rank: int, whole: bool = False, count: int = 64):
    """A slice as readers of PLSC 0.1 took it; labels repeat, so that the slices have the same labels."""
    numbers = range(count) if whole else range(rank * count // 2, (rank + 1) * count // 2)
    return lambda: (sample(number) for number in numbers)


def test_readers_that_are_the_same_everywhere_pass() -> None:
    data = [UserReader(part(rank, whole=True), 4, SHAPE) for rank in range(3)]
    sample_agreement.require_equal_samples(data[0], fingerprints(*data), print)
    drawn = [UserReader(drawing, 4, SHAPE, seed=3) for _ in range(2)]
    random.random()
    sample_agreement.require_equal_samples(drawn[0], fingerprints(*drawn), print)


@pytest.mark.parametrize("readers, text", [
    ([part(0), part(1)], "sample 0 has other pixels on rank 1 than on rank 0"),
    ([part(0, True), part(1, True, 63)], "has 64 samples on rank 0 and 63 on rank 1"),
    ([part(0, True), part(0, True), lambda: reversed(list(part(0, True)()))], "label 0 on rank 0 and 3 on rank 2"),
])  # fmt: skip
def test_readers_of_a_slice_or_another_order_are_refused_with_the_reason(readers, text) -> None:
    data = [UserReader(one, 4, SHAPE) for one in readers]
    with pytest.raises(DataError, match=text) as caught:
        sample_agreement.require_equal_samples(data[0], fingerprints(*data), print)
    assert "do not slice by PADDLE_TRAINER_ID" in str(caught.value) and "\n" not in str(caught.value)


def test_a_fingerprint_does_not_move_the_reader() -> None:
    hook = UserReader(part(0, True), 4, SHAPE, 64)
    hook.get(0, 0)
    assert sample_agreement.sample_fingerprint(hook)["labels"] == [n % 4 for n in range(sample_agreement.NUM_SAMPLES)]
    assert hook.get(1, 0)[0][0, 0, 0] == 1


def test_data_sets_that_differ() -> None:
    """Other labels or another number are refused; other pixels alone are said, which a generator of their own makes."""

    def data(first: int, count: int = 40, shift: float = 0.0) -> UserDataset:
        return UserDataset([(sample(n)[0] + shift, n % 4) for n in range(first, first + count)], 4, SHAPE, 1)

    told: list[str] = []
    sample_agreement.require_equal_samples(data(0), fingerprints(data(0), data(0)), told.append)
    assert told == []
    sample_agreement.require_equal_samples(data(0), fingerprints(data(0), data(0, shift=0.5)), told.append)
    assert len(told) == 1 and told[0].startswith("train_dataset: sample 0 has other pixels on rank 1")
    for other, text in ((data(1), "label 0 on rank 0 and 1 on rank 1"), (data(0, 39), "40 samples on rank 0 and 39")):
        with pytest.raises(DataError, match=text):
            sample_agreement.require_equal_samples(data(0), fingerprints(data(0), other), told.append)


def test_a_call_in_a_fork() -> None:
    iterator, here = iter([1, 2, 3]), os.getpid()
    assert call_in_fork(lambda: (next(iterator), os.getpid() != here)) == (1, True)
    assert next(iterator) == 1  # it was the child's copy that moved on

    def refuse():
        raise DataError("no such sample")

    with pytest.raises(PlscError, match="no such sample"):
        call_in_fork(refuse)
    with pytest.raises(DataError, match="plsc-data-check .* ended with exit code 3"):
        call_in_fork(lambda: os._exit(3))
