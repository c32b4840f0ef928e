"""Augmentations: who draws what, and every mistake as one clear line."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.config import Config
from plsc.data import Augmentations, GlobalBatchSampler, ImageListDataset, Loader, Preparation, Source, SourceDataset
from plsc.data.augmentations import register_augmentation
from plsc.data.philox import FLIP
from plsc.data.transforms import normalise
from plsc.errors import ConfigError, DataError
from plsc.registry import AUGMENTATIONS
from tests.registries import forget_afterwards

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    AUGMENTATIONS.names()
    forget_afterwards(monkeypatch, AUGMENTATIONS)


def drawn(seed: int, purpose: int, epoch: int, index: int) -> np.random.Generator:
    """The generator by its definition: Philox with the key (seed, purpose) and the counter (0, 0, epoch, index)."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, epoch, index]))


def noise(image, generator, most: int = 9):
    """Something random."""
    return (image // 2 + generator.integers(0, most, image.shape, dtype=np.uint8)).astype(np.uint8)


def test_flips_alone_are_those_of_random_flip():
    """To the bit, in the stream that they always had: checkpoints go on with the same images."""
    flips, count = Augmentations(["flip"], seed=5), 0
    for epoch in range(3):
        for index in range(50):
            expected = IMAGE[:, ::-1] if drawn(5, FLIP, epoch, index).integers(2) else IMAGE
            np.testing.assert_array_equal(flips(IMAGE, epoch, index), expected)
            count += expected is not IMAGE
    assert 50 < count < 100


def test_each_place_draws_from_a_stream_of_its_own():
    register_augmentation("noise")(noise)
    found = Augmentations(["flip", {"noise": {"most": 5}}, "noise"], seed=7)(IMAGE, 2, 3)
    expected = IMAGE[:, ::-1] if drawn(7, FLIP, 2, 3).integers(2) else IMAGE
    for place, most in ((1, 5), (2, 9)):
        expected = expected // 2 + drawn(7, 2**32 + place, 2, 3).integers(0, most, expected.shape, dtype=np.uint8)
    np.testing.assert_array_equal(found, expected)


class Pixels(Source):
    """Images that it keeps."""

    def __init__(self) -> None:
        self.images = np.random.default_rng(1).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return 12

    def read(self, index):
        return self.images[index], index


def dataset(steps, seed: int = 3) -> SourceDataset:
    return SourceDataset(Pixels(), 12, Preparation((3, 6, 5), Augmentations(steps, seed)))


def test_images_are_the_same_for_any_workers_and_ranks_and_where_a_run_goes_on():
    register_augmentation("noise")(noise)
    runs = []
    for workers, world, first in [(0, 1, 0), (2, 1, 0), (3, 2, 0), (1, 3, 2)]:
        data = dataset(["noise", "flip"])
        samplers = [GlobalBatchSampler(12, 6 // world, rank, world, seed=5) for rank in range(world)]
        loaders = [Loader(data, sampler, workers, first, 5) for sampler in samplers]
        steps = zip(*map(list, loaders))
        runs.append(np.stack([np.concatenate([part[1] for part in parts]) for parts in steps]))
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0][-len(run) :])
    assert not np.array_equal(runs[0], np.stack([runs[0][0]] * 5))


def test_no_augmentation_is_the_image():
    np.testing.assert_array_equal(dataset([]).get(4, 1)[0], normalise(Pixels().images[4], 127.5))


def test_an_image_cannot_be_written_over():
    def writes(image, generator):
        image[0] = 0
        return image

    register_augmentation("writes")(writes)
    data = dataset(["writes"])
    with pytest.raises(DataError, match=r"^image 4: augmentation 'writes' raised ValueError: .*read-only \(test_augm"):
        data.get(4, 0)
    assert data._source.images[4].any()


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (
            lambda image, generator: image.astype("float32"),
            r"returned float32 \[6, 5, 3\], must return an array uint8 \[",
        ),
        (lambda image, generator: image[1:], r"returned uint8 \[5, 5, 3\], must return an array uint8 \[6, 5, 3\]"),
        (lambda image, generator: None, "returned NoneType"),
        (lambda image, generator: {}["x"], r"raised KeyError: 'x' \(test_augmentations.py:\d+\)"),
    ],
)
def test_what_is_no_image_is_named(function, text):
    register_augmentation("mine")(function)
    with pytest.raises(DataError, match=f"^image 4: augmentation 'mine' {text}") as caught:
        dataset(["flip", "mine"]).get(4, 0)
    assert "\n" not in str(caught.value)


def test_settings():
    register_augmentation("noise")(noise)
    config = Config()
    config.set("data.augmentations", "flip,noise")
    assert config.data.augmentations == ["flip", "noise"]
    config.override(["data.augmentations=[flip, {noise: {most: 3}}, {noise: }]"])
    assert config.data.augmentations == ["flip", {"noise": {"most": 3}}, {"noise": {}}]
    assert Config.from_dict(config.to_dict()) == config
    config.set("data.random_flip", False)
    assert config.without_effect() == ["data.random_flip=False: has no effect with data.augmentations"]
    config.update({"data": {"augmentations": None, "dataset": "synthetic"}})
    assert config.without_effect() == ["data.random_flip=False: has no effect with data.dataset: synthetic"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["flop"], "'flop' is not an augmentation; did you mean flip"),
        ([{"flip": {"size": 3}}], "augmentation 'flip': there is no option size; it takes none"),
        ([{"noise": {"most": 0.5}}], "augmentation 'noise': most=0.5 must be int; its options: most (int, default 9)"),
        ([{"flip": {}, "noise": {}}], "a mapping in the list must have one name"),
        ([3], "must be a list of names, or of {name: {option: value}}"),
        ({"flip": {}}, "must be a list of names"),
    ],
)
def test_wrong_settings(value, text):
    register_augmentation("noise")(noise)
    with pytest.raises(ConfigError) as caught:
        Config().set("data.augmentations", value)
    assert str(caught.value).startswith("data.augmentations=") and text in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda image: image, r"augmentation 'x': takes \(image\); it must take image, generator, then options"),
        (np.zeros(3), "augmentation 'x': is ndarray, neither a class nor a function"),
    ],
)
def test_another_signature_is_refused(value, text):
    with pytest.raises(ConfigError, match=text):
        register_augmentation("x")(value)
    assert "x" not in AUGMENTATIONS


def test_a_name_that_is_taken():
    with pytest.raises(ConfigError, match="augmentation 'flip': the name is taken by plsc.data.augmentations.flip"):
        register_augmentation("flip")(noise)


def test_a_list_without_flips_has_none(tmp_path):
    from PIL import Image

    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    (tmp_path / "label.txt").write_text("a.png\t0\n" * 8)
    data = ImageListDataset(tmp_path, "label.txt", 1, (3, 6, 5), seed=1, random_flip=False)
    for index in range(8):
        np.testing.assert_array_equal(data.get(index, 0)[0], normalise(IMAGE, 127.5))
