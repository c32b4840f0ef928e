"""Images are fed to the training program as pixels, uint8, and normalized there to the same bits as on the host."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import static
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data import Loader, LoaderOptions, SyntheticDataset, normalise
from plsc.data.sampler import GlobalBatchSampler
from plsc.data.transforms import normalise_pixels
from plsc.engine.program.build import BuildOptions, build_train
from plsc.engine.program.inputs import feeds_pixels, make_inputs
from plsc.engine.program.scopes import make_executor
from plsc.engine.program.session import Session
from plsc.errors import DataError
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group

ALONE, BATCH, CLASSES, SIDE = Environment(0, 1, "cpu"), 6, 11, 16
IMAGE = {"name": "image", "shape": [-1, 3, SIDE, SIDE], "dtype": "float32"}


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


def config(**changes) -> Config:
    return Config.from_dict({
        "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, SIDE, SIDE], "embedding_size": 6},
        "classifier": {"num_classes": CLASSES, "sample_ratio": 0.5}, "train_batch_size": BATCH, **changes,
    })  # fmt: skip


@pytest.mark.parametrize("channels, pixel_std", [(3, 127.5), (1, 128.0)])
def test_every_pixel_value_is_normalized_to_the_same_bits(channels, pixel_std):
    """Equal, not close: a byte, a float32 difference and a float32 quotient are each rounded in one way only."""
    side = 16 if channels == 1 else 32
    settings = config(model={"image_shape": [channels, side, side]}, data={"pixel_std": pixel_std})
    pixels = np.random.default_rng(1).permutation(np.arange(2 * channels * side * side) % 256).astype(np.uint8)
    pixels = pixels.reshape(2, channels, side, side)
    main = paddle.static.Program()
    with static.building(main, paddle.static.Program()):
        given = make_inputs(settings, 2, with_label=False, pixels=True)
    (found,) = make_executor(ALONE).run(main, feed={"image": pixels}, fetch_list=list(given.values.values()))
    assert found.dtype == np.float32 and set(pixels.ravel().tolist()) == set(range(256))
    expected = np.stack([normalise(image.transpose(1, 2, 0), pixel_std) for image in pixels])
    assert found.tobytes() == expected.tobytes()


def steps(settings: Config, pixels: bool):
    """(losses of three steps, all replicated variables after them) with the same images in either form."""
    program = build_train(settings, UserObjects(), ALONE, seed=3, options=BuildOptions(pixels=pixels))
    assert program.pixels == pixels
    session = Session(program, ALONE, seed=3)
    session.start(connected_group(ALONE))
    draw, losses = np.random.default_rng(5), []
    for number in range(3):
        batch = settings.step_batch_size
        images = draw.integers(0, 256, (batch, 3, SIDE, SIDE), dtype=np.uint8)
        inputs = {"image": images if pixels else normalise_pixels(images, 128.0)}
        losses.append(session.step(number, {**inputs, "label": draw.integers(0, CLASSES, batch)}, 0.1)["loss"])
    states = session.replicated()
    session.close()
    return losses, states


@pytest.mark.parametrize("changes", [
    {}, {"model.data_format": "NHWC", "model.recompute": True, "grad_clip_norm": 1.0}, {"accumulate": 2},
], ids=str)  # fmt: skip
def test_training_does_not_change(changes):
    """What the model gets is the same to the bit (above); its kernels round by where arrays lie, which differs."""
    settings = config(data={"pixel_std": 128.0})
    for key, value in changes.items():
        settings.set(key, value)
    losses, states = steps(settings, pixels=False)
    found, others = steps(settings, pixels=True)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    assert states.keys() == others.keys() and len(set(losses)) == 3
    for key, value in states.items():  # three steps of rounding; another normalization is off by far more
        np.testing.assert_allclose(others[key], value, rtol=0, atol=1e-4 * np.abs(value).max() + 1e-6, err_msg=key)


@pytest.mark.parametrize("parts, changes, expected", [
    (UserObjects(), {}, True),
    (UserObjects(), {"data": {"dataset": "synthetic"}}, False),  # it gives inputs of the model
    (UserObjects(train_dataset=[(0, 0)]), {}, False),
    (UserObjects(train_reader=lambda: iter(())), {}, False),
    (UserObjects(), {"model": {"input_info": [IMAGE, {"name": "label", "shape": [-1], "dtype": "int64"}]}}, True),
])  # fmt: skip
def test_what_is_fed_as_pixels(parts, changes, expected):
    assert feeds_pixels(Config.from_dict({"model": {"image_shape": [3, SIDE, SIDE]}, **changes}), parts) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_no_pixels_where_there_are_none(workers):
    data, sampler = SyntheticDataset(8, 2, (3, 8, 8), 0), GlobalBatchSampler(8, 4, 0, 1, seed=3)
    with pytest.raises(DataError, match=r"takes pixels, but SyntheticDataset gives inputs .*`ready = True` in its"):
        Loader(data, sampler, workers, 0, 2, LoaderOptions(pixels=True))
