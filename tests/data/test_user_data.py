"""Users' own data: what is handed on, and what is refused by name."""

from __future__ import annotations

import random

import numpy as np
import pytest

from plsc.data import (
    GlobalBatchSampler,
    Loader,
    SampleOrder,
    UserDataset,
    UserReader,
    read_test_image,
    read_test_sample,
)
from plsc.errors import DataError

SHAPE = (3, 2, 4)
GOOD = np.full(SHAPE, 0.5, dtype=np.float32)


class _Pairs:
    """A map-style data set in the user's way."""

    def __init__(self, samples: list) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> object:
        return self.samples[index]


@pytest.mark.parametrize("label", [3, np.int32(3), np.array([3]), np.array(3, np.uint8), [3]])
@pytest.mark.parametrize("image", [GOOD, GOOD.astype(np.float64), GOOD.astype(np.float16), GOOD.tolist()])
@pytest.mark.parametrize("container", [tuple, list])
def test_good_samples(label: object, image: object, container: type) -> None:
    hook = UserDataset(_Pairs([container([image, label])]), 4, SHAPE, seed=0)
    out, number = hook.get(0, 0)
    assert (len(hook), out.dtype, number.dtype, number) == (1, np.float32, np.int64, 3)
    np.testing.assert_array_equal(out, GOOD)


BAD = [
    ((GOOD[:2], 1), r"shape \[2, 2, 4\], but model.image_shape is \[3, 2, 4\]"),
    ((GOOD.astype(np.uint8), 1), "uint8, must be float32"),
    ((GOOD * np.nan, 1), "not finite"),
    ((GOOD.astype(np.float64) * 1e300, 1), "not finite"),
    ((GOOD, 1.0), "one integer, not float64"),
    ((GOOD, True), "one integer, not bool"),
    ((GOOD, [1, 2]), "one integer"),
    ((GOOD, None), "one integer"),
    ((GOOD, -1), "label -1 is not in 0..3"),
    ((GOOD, 4), "label 4 is not in 0..3"),
    (([[1.0], [1.0, 2.0]], 1), "cannot be read as arrays: ValueError"),
    (GOOD, "pair"),
    ((GOOD, 1, 1), "pair"),
]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("sample, text", BAD)
def test_bad_samples_are_named(sample: object, text: str) -> None:
    with pytest.raises(DataError, match=r"train_dataset\[1\].*" + text):
        UserDataset(_Pairs([(GOOD, 0), sample]), 4, SHAPE, seed=0).get(1, 0)
    reader = UserReader(lambda: iter([(GOOD, 0), sample]), 4, SHAPE)
    reader.get(0, 0)
    with pytest.raises(DataError, match="sample 1 of epoch 0.*" + text):
        reader.get(1, 0)


def test_exceptions_of_the_users_code_are_named() -> None:
    class Broken:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> object:
            return {}["gone"]

    with pytest.raises(DataError, match=r"train_dataset\[5\] raised KeyError: 'gone' \(test_user_data.py:\d+\)"):
        UserDataset(Broken(), 4, SHAPE, seed=0).get(5, 0)
    with pytest.raises(DataError, match="has no usable __len__"):
        UserDataset(type("NoLength", (), {"__getitem__": lambda self, i: None})(), 4, SHAPE, seed=0)
    with pytest.raises(DataError, match="int has no __getitem__"):
        UserDataset(3, 4, SHAPE, seed=0)
    with pytest.raises(DataError, match="must be a function"):
        UserReader([(GOOD, 1)], 4, SHAPE)
    with pytest.raises(DataError, match=r"train_reader\(\) raised TypeError"):
        UserReader(lambda: None, 4, SHAPE)


class _Augmented:
    """Random augmentation by the global generators, as users write it."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full(SHAPE, index + random.random() + np.random.rand()), index % 4


def test_users_random_augmentation_does_not_depend_on_workers() -> None:
    hook = UserDataset(_Augmented(), 4, SHAPE, seed=7)
    runs = []
    for workers in (0, 1, 2):
        with Loader(hook, GlobalBatchSampler(12, 4, 0, 1, seed=1), workers, 0, 6) as loader:
            runs.append([images for _, images, _ in loader])
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
    assert hook.get(3, 0)[0][0, 0, 0] != hook.get(3, 1)[0][0, 0, 0]
    fractions = {round(float(hook.get(i, 0)[0][0, 0, 0]) - i, 4) for i in range(12)}
    assert len(fractions) == 12  # not the same draw for each image


def test_the_callers_own_generators_are_left_alone() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    UserDataset(_Augmented(), 4, SHAPE, seed=7).get(0, 0)
    assert (random.random(), np.random.rand()) == expected


def _numbered(count: int):
    def reader():
        for number in range(count):
            yield np.full(SHAPE, number, dtype=np.float32), number % 4

    return reader


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [None, 10])
def test_reader_keeps_its_order_over_ranks_and_epochs(workers: int, count: int | None) -> None:
    for first_step in (0, 2, 5):
        seen: dict[int, list[float]] = {}
        for rank in range(2):
            hook = UserReader(_numbered(10), 4, SHAPE, num_samples=count)
            sampler = GlobalBatchSampler(len(hook), 2, rank, 2, seed=0, order=SampleOrder(shuffle=False))
            with Loader(hook, sampler, workers, first_step, 8) as loader:
                assert workers == 0 or len(loader._pool._workers) == 1  # each would read everything
                for step, images, labels in loader:
                    np.testing.assert_array_equal(labels, images[:, 0, 0, 0].astype(int) % 4)
                    seen.setdefault(step, []).extend(images[:, 0, 0, 0])
        assert [n for step in sorted(seen) for n in seen[step]] == [p % 10 for p in range(first_step * 4, 32)]


@pytest.mark.parametrize("expected, text", [(12, "ended after 10 samples of epoch 0, but 12"), (8, "more than 8")])
def test_reader_of_another_length_is_an_error(expected: int, text: str) -> None:
    hook = UserReader(_numbered(10), 4, SHAPE, num_samples=expected)
    with pytest.raises(DataError, match=text):
        for position in range(20):
            hook.get(position % expected, position // expected)


def test_reader_that_fails_is_named() -> None:
    def reader():
        yield GOOD, 0
        raise OSError("disk gone")

    hook = UserReader(reader, 4, SHAPE, num_samples=2)
    hook.get(0, 0)
    with pytest.raises(DataError, match=r"sample 1 of epoch 0 raised OSError: disk gone \(test_user_data.py"):
        hook.get(1, 0)


def test_test_samples_are_seeded_by_their_index() -> None:
    """The same in every reading, different from one to the next, and the caller's generators are left alone."""
    data = _Augmented()
    random.seed(1)
    expected = random.random()
    random.seed(1)
    first = [read_test_sample(data, index, SHAPE)[0] for index in range(4)]
    assert random.random() == expected
    for index in (3, 0, 2, 1):
        np.testing.assert_array_equal(read_test_sample(data, index, SHAPE)[0], first[index])
        np.testing.assert_array_equal(read_test_image(data, index, SHAPE), first[index])
    assert len({float(image[0, 0, 0]) % 1 for image in first}) == 4


def test_images_alone_need_no_label() -> None:
    samples = [(GOOD.astype(np.float64), "no label"), (GOOD[:2], 1), (GOOD,), None]
    assert read_test_image(_Pairs(samples), 0, list(SHAPE)).dtype == np.float32
    np.testing.assert_array_equal(read_test_image(_Pairs(samples), 2, SHAPE), GOOD)
    for index, text in ((1, r"test_dataset\[1\]: is \[2, 2, 4\]"), (3, "must be .image, label., not NoneType"),
                        (4, r"test_dataset\[4\] raised IndexError")):  # fmt: skip
        with pytest.raises(DataError, match=text):
            read_test_image(_Pairs(samples), index, SHAPE)
