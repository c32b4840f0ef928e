"""The augmentations of PLSC and the presets: what they draw, their options, one channel, any number of workers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plsc.config import Config
from plsc.config.augmentations import PRESETS
from plsc.data import Augmentations, GlobalBatchSampler, Loader, Preparation, Source, SourceDataset, pixels
from plsc.data.augmentations import rand_augment, register_augmentation
from plsc.errors import ConfigError
from plsc.registry import AUGMENTATIONS
from tests.registries import forget_afterwards

NAMES = AUGMENTATIONS.names()
WITH_PROBABILITY = [name for name in NAMES if name != "flip"]
SIDE = 32
IMAGE = np.random.default_rng(0).integers(40, 200, (SIDE, SIDE, 3), dtype=np.uint8)


def augmented(name: str, image: np.ndarray = IMAGE, count: int = 1, **options) -> list[np.ndarray]:
    """The image as so many epochs see it."""
    steps = Augmentations([{name: options}], seed=11)
    return [steps(image, epoch, 4) for epoch in range(count)]


@pytest.mark.parametrize("shape", [(SIDE, SIDE, 1), (7, 5, 3), (5, 7, 1), (1, 1, 3), (1, 2, 1)])
@pytest.mark.parametrize("name", WITH_PROBABILITY)
def test_any_size_and_one_channel(name, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    for found in augmented(name, image, 30, probability=1.0):  # Augmentations refuses another shape or dtype
        assert found.shape == shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", WITH_PROBABILITY)
def test_probability_is_the_share_that_is_changed(name):
    """300 draws with a chance of 0.3: from 60 to 120 is 3.8 standard deviations to both sides. rand_augment may leave
    an image as it is."""
    assert all(found is not None and np.array_equal(found, IMAGE) for found in augmented(name, count=20, probability=0))
    changed = sum(not np.array_equal(found, IMAGE) for found in augmented(name, count=300, probability=0.3))
    assert (40 if name == "rand_augment" else 60) <= changed <= 120


def boxes(found: list[np.ndarray], outside: np.ndarray) -> np.ndarray:
    """(rows, columns) of what differs from ``outside`` in each; asserts that it fills a box."""
    sizes = []
    for one in found:
        rows, columns = np.nonzero((one != outside).any(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) >= 0.98 * height * width  # noise may be what was there: 1 in 256**3
        sizes.append((height, width))
    return np.array(sizes)


def test_a_crop_in_place_is_black_around_a_box():
    found = augmented("random_crop", count=400, probability=1, smallest=0.2, in_place=True)
    sizes = boxes([one for one in found], np.zeros_like(IMAGE))
    for one in found:
        inside = one.any(axis=2)
        np.testing.assert_array_equal(one[inside], IMAGE[inside])
    share, ratio = sizes.prod(axis=1) / SIDE**2, sizes[:, 1] / sizes[:, 0]
    # a side of 12 pixels is rounded by half a pixel, 4 %
    assert 0.18 < share.min() < 0.25 and share.max() > 0.9 and 0.45 < share.mean() < 0.65
    assert 0.68 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.45


def test_a_crop_is_enlarged():
    """The same box as in place, by the same draws."""
    options = {"count": 20, "probability": 1, "smallest": 0.3}
    for small, large in zip(augmented("random_crop", in_place=True, **options), augmented("random_crop", **options)):
        rows, columns = np.nonzero(small.any(axis=2))
        box = IMAGE[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        expected = np.asarray(Image.fromarray(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(large, expected)


def test_erasing_puts_noise_into_a_box():
    found = augmented("random_erasing", count=400, probability=1, smallest=0.05, largest=0.3)
    sizes = boxes(found, IMAGE)
    share, ratio = sizes.prod(axis=1) / SIDE**2, sizes[:, 1] / sizes[:, 0]
    assert 0.03 < share.min() < 0.08 and 0.25 < share.max() < 0.35 and 0.15 < share.mean() < 0.2
    assert ratio.min() < 0.45 and ratio.max() > 2.2  # the logarithm is even: as many wide ones as high ones
    assert 0.4 < (ratio > 1).mean() < 0.6
    erased = np.concatenate([one[one != IMAGE] for one in found])
    assert abs(erased.mean() - 127.5) < 2 and erased.min() == 0 and erased.max() == 255


def test_low_resolution_is_drawn_from_the_generator():
    for epoch, found in enumerate(augmented("low_resolution", count=20, probability=1, smallest=0.2)):
        drawn = np.random.Generator(np.random.Philox(key=[11, 2], counter=[0, 0, epoch, 4]))
        drawn.random()
        side = round(SIDE * drawn.uniform(0.2, 1.0))
        filters = [Image.Resampling(number) for number in (0, 2, 4, 3, 1)]  # Pillow's numbers
        down, up = (filters[number] for number in drawn.integers(5, size=2))
        small = Image.fromarray(IMAGE).resize((side, side), down)
        np.testing.assert_array_equal(found, np.asarray(small.resize((SIDE, SIDE), up)))


def test_jitter_of_one_kind_is_that_kind():
    for option in ("brightness", "contrast", "saturation"):
        others = {other: 0 for other in ("brightness", "contrast", "saturation") if other != option}
        factors = []
        for found in augmented("colour_jitter", count=25, probability=1, **{option: 0.4}, **others):
            tried = np.linspace(0.6, 1.4, 81)
            distances = [np.abs(getattr(pixels, option)(IMAGE, one).astype(float) - found).mean() for one in tried]
            factors.append(tried[np.argmin(distances)])
            assert min(distances) < 0.7  # a step of 0.01 is 1 level, of which half
        assert min(factors) < 0.7 and max(factors) > 1.3
    grey = [found for found in augmented("colour_jitter", count=5, probability=1, saturation=1.0)]
    assert len({found.tobytes() for found in grey}) == 5


def test_grey_is_the_same_in_all_channels():
    (found,) = augmented("grey", probability=1)
    assert (found == found[:, :, :1]).all()
    np.testing.assert_allclose(found[:, :, 0], IMAGE @ [0.299, 0.587, 0.114], atol=0.51)  # rounded


def test_quality_and_sigma_are_in_their_ranges():
    qualities = set()
    for found in augmented("jpeg_quality", count=60, probability=1, lowest=30, highest=33):
        for quality in range(28, 36):
            file = io.BytesIO()
            Image.fromarray(IMAGE).save(file, "JPEG", quality=quality)
            if np.array_equal(np.asarray(Image.open(file)), found):
                qualities.add(quality)
    assert qualities == {30, 31, 32, 33}
    # of noise with a deviation of 1 a Gaussian leaves 1 / (2 sigma sqrt(pi))
    noise = np.random.default_rng(2).normal(128, 40, (96, 96, 1)).clip(0, 255).astype(np.uint8)
    left = [found.std() / noise.std() for found in augmented("blur", noise, 60, probability=1, smallest=1, largest=2)]
    assert 0.13 < min(left) < 0.17 and 0.25 < max(left) < 0.3


def test_rand_augment_makes_so_many_changes():
    for operations in (1, 3):
        found = augmented("rand_augment", count=200, operations=operations, magnitude=20)
        same = sum(np.array_equal(one, IMAGE) for one in found)
        # identity is 1 of 14, and autocontrast, equalize of this image change it: 14 of 200, or less than one
        assert (4 <= same <= 28) if operations == 1 else same <= 3
    assert len({one.tobytes() for one in augmented("rand_augment", count=200)}) > 150


def test_a_magnitude_is_of_30(monkeypatch):
    monkeypatch.setattr(rand_augment, "CHANGES", (rand_augment.brighten,))
    found = augmented("rand_augment", count=20, operations=1, magnitude=10)
    assert {one.tobytes() for one in found} == {pixels.brightness(IMAGE, one).tobytes() for one in (0.7, 1.3)}


class Pixels(Source):
    """Images that it keeps."""

    def __init__(self, channels: int) -> None:
        self.images = np.random.default_rng(1).integers(0, 256, (12, SIDE, SIDE, channels), dtype=np.uint8)

    def __len__(self) -> int:
        return 12

    def read(self, index):
        return self.images[index], index


@pytest.mark.parametrize("channels", [1, 3])
def test_strong_is_the_same_for_any_workers_and_ranks(channels):
    """To the bit. All probabilities are 1 here, so that every augmentation takes part."""
    steps = [{name: {**options, "probability": 1.0}} for step in PRESETS["strong"] if isinstance(step, dict)
             for name, options in step.items()]  # fmt: skip
    runs = []
    for workers, world in [(0, 1), (2, 1), (1, 2)]:
        data = SourceDataset(Pixels(channels), 12, Preparation((channels, SIDE, SIDE), Augmentations(steps, 3)))
        samplers = [GlobalBatchSampler(12, 6 // world, rank, world, seed=5) for rank in range(world)]
        loaders = [Loader(data, sampler, workers, 0, 3) for sampler in samplers]
        runs.append(np.stack([np.concatenate([part[1] for part in parts]) for parts in zip(*map(list, loaders))]))
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])
    assert len({image.tobytes() for image in runs[0].reshape(18, -1)}) == 18  # each epoch another one


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_name_of_a_list(preset):
    config = Config()
    config.set("data.augmentations", preset)
    assert config.data.augmentations == PRESETS[preset] and config.data.augmentations is not PRESETS[preset]
    stored = Config.from_dict(config.to_dict())
    assert stored == config and stored.to_dict()["data"]["augmentations"] == PRESETS[preset]
    other = Config()
    other.override([f"data.augmentations={preset}"])
    assert other == config


def test_adaface_is_that_of_the_paper():
    """0.2 each: a crop of 0.2 to 1 pasted on zeros at its place; down to 0.2 to 1 and up; three factors of 0.5."""
    flip, *others = PRESETS["adaface"]
    assert flip == "flip" and [name for step in others for name in step] == [
        "random_crop", "low_resolution", "colour_jitter"
    ]  # fmt: skip
    options = {name: values for step in others for name, values in step.items()}
    assert all(values["probability"] == 0.2 for values in options.values())
    assert options["random_crop"]["smallest"] == options["low_resolution"]["smallest"] == 0.2
    assert options["random_crop"]["in_place"] is True


def test_the_default_is_a_flip():
    assert Config().data.augmentations is None and PRESETS["flip"] == ["flip"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("adafac", "or a preset: none, flip, adaface, strong; did you mean the preset adaface?"),
        ("flip,strong", "'strong' is a preset and stands alone, as in data.augmentations: strong"),
        (["none"], "'none' is a preset and stands alone"),
        ([{"grey": {"probability": 1.1}}], "augmentation 'grey': probability=1.1 must be in [0, 1]"),
        ([{"blur": {"smallest": 0}}], "augmentation 'blur': smallest=0 must be in [0.1, 16]"),
        ([{"blur": {"smallest": 3}}], "augmentation 'blur': largest=2.0 must be in [3, 16], with smallest=3"),
        ([{"jpeg_quality": {"lowest": 50, "highest": 40}}], "highest=40 must be in [50, 100], with lowest=50"),
        ([{"jpeg_quality": {"lowest": 0}}], "lowest=0 must be in [1, 100]"),
        ([{"random_crop": {"smallest": 0}}], "smallest=0 must be in (0, 1]"),
        ([{"random_crop": {"in_place": 1}}], "in_place=1 must be bool"),
        ([{"low_resolution": {"smallest": 1.5}}], "smallest=1.5 must be in (0, 1]"),
        ([{"colour_jitter": {"hue": 0.6}}], "hue=0.6 must be in [0, 0.5]"),
        ([{"random_erasing": {"smallest": 0.5}}], "largest=0.4 must be in [0.5, 1], with smallest=0.5"),
        ([{"rand_augment": {"magnitude": 31}}], "magnitude=31 must be in [0, 30]"),
        ([{"rand_augment": {"operations": 0}}], "operations=0 must be in [1, 14]"),
    ],
)
def test_wrong_options_are_one_line_before_the_run(value, text):
    with pytest.raises(ConfigError) as caught:
        Config().set("data.augmentations", value)
    assert str(caught.value).startswith("data.augmentations=") and text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WITH_PROBABILITY)
def test_every_number_has_a_range(name):
    """An option without one could be anything."""
    entry = AUGMENTATIONS.entry(name)
    numbers = {key for key, kind in entry.value.__annotations__.items() if kind in ("int", "float")}
    assert set(entry.within) == numbers


def test_a_range_of_no_option_and_the_name_of_a_preset_are_refused(monkeypatch):
    forget_afterwards(monkeypatch, AUGMENTATIONS)

    def mine(image, generator, most: int = 3):
        """Mine."""
        return image

    with pytest.raises(ConfigError, match="^augmentation 'mine': within has a range of least, which is no option"):
        register_augmentation("mine", within={"least": "[0, 1]"})(mine)
    with pytest.raises(ConfigError, match="^augmentation 'strong': is the name of a preset"):
        register_augmentation("strong")(mine)
    register_augmentation("mine", within={"most": "[0, 4]"})(mine)
    with pytest.raises(ConfigError, match="most=5 must be in"):
        Config().set("data.augmentations", [{"mine": {"most": 5}}])
