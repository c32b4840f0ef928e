"""Nets of one channel from the list to the Predictor, and of two channels with a user's own data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc import Entry, Predictor
from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import save_bin
from tests import using_kit as kit

HEIGHT, WIDTH = 32, 48


def grey(seed: int) -> np.ndarray:
    return kit.pixels(seed)[:, :, 0]


def settings(folder: Path, channels: int = 1, **changes) -> dict:
    shape = {"image_shape": [channels, HEIGHT, WIDTH]}
    data = {"dataset": "list", "dataset_dir": str(folder), "val_targets": ["own"], "train_image_num": None}
    values = {"model": shape, "data": data, "model_save_dir": str(folder / "run"), "train_steps": 2}
    return kit.settings(**{**values, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Grey images with a list, a verification set of them, and a finished run."""
    folder = tmp_path_factory.mktemp("grey")
    for index in range(16):
        Image.fromarray(grey(index)).save(folder / f"{index}.png")
    (folder / "label.txt").write_text("".join(f"{index}.png\t{index % 4}\n" for index in range(16)))
    pairs = [grey(pair if pair % 2 else 2 * pair + second) for pair in range(12) for second in range(2)]
    save_bin(folder / "own.bin", pairs, [pair % 2 == 1 for pair in range(12)])
    result = Entry(config=settings(folder, with_test=True)).train()
    assert result.step == 2 and np.isfinite(result.loss) and result.verification["own"].num_same == 6
    return folder


def expected(folder: Path, seeds) -> np.ndarray:
    images = np.stack([((grey(seed).astype(np.float64) - 127.5) / 127.5)[None] for seed in seeds]).astype(np.float32)
    shape = {"image_shape": [1, HEIGHT, WIDTH]}
    return kit.evaluation_program(str(folder / "run"), images, model=shape)


def test_predict_verify_export_and_the_predictor(folder, tmp_path):
    """Each gives what the evaluation program gives for the grey values themselves."""
    made = Entry(config=settings(folder, model_save_dir=str(tmp_path), checkpoint_dir=str(folder / "run")))
    features = expected(folder, range(16))
    kit.assert_close(np.array(made.predict().features), features)
    assert made.test(html_file=str(tmp_path / "page.html"))["own"].num_different == 6
    with Predictor(made.convert_for_prediction()) as predictor:
        kit.assert_close(predictor.embed(grey(3)), features[3:4])
        kit.assert_close(predictor.embed(str(folder / "3.png")), features[3:4])
        colours = np.repeat(grey(3)[:, :, None], 3, axis=2)  # colours without colour are grey
        kit.assert_close(predictor.embed(colours), features[3:4])
        large = np.asarray(Image.fromarray(grey(3)).resize((96, 64), Image.Resampling.NEAREST))
        assert predictor.embed(large).shape == (1, kit.SIZE)


class Numbers:
    """A user's own samples of any shape."""

    def __init__(self, channels: int, count: int = 24):
        self.channels, self.count = channels, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        label = (index // 2 + index % 2 * (index // 2 % 2)) % 4  # every second pair has two labels
        return np.random.uniform(-1, 1, (self.channels, HEIGHT, WIDTH)).astype("float32"), label


def test_own_data_may_have_any_channels(tmp_path):
    """The key data.dataset, a list by default, does not count then."""
    made = Entry(config=settings(tmp_path, 2, with_test=True))
    made.train_dataset, made.test_dataset = Numbers(2), Numbers(2)
    assert made.train().step == 2
    made.set_checkpoint_dir(str(tmp_path / "run"))
    once, again = np.array(made.predict().features), np.array(made.predict().features)
    np.testing.assert_array_equal(once, again)  # drawn, by seeds that stay
    assert len(np.unique(once.round(5), axis=0)) == 24
    assert made.test()["test_dataset"].num_same == 6
    with Predictor(made.convert_for_prediction()) as predictor:
        assert predictor.run(np.zeros((1, 2, HEIGHT, WIDTH), np.float32))[0].shape == (1, kit.SIZE)
        with pytest.raises(DataError, match="3 channels .RGB. or 1 .grey., model.image_shape has 2"):
            predictor.embed(grey(0))


def test_images_for_a_net_of_two_channels_are_refused_in_one_line(folder, tmp_path):
    wrong = Entry(config=settings(folder, 2, model_save_dir=str(tmp_path / "run")))
    line = r"image_shape=\[2, 32, 48\]: images are read with 3 channels .RGB. or 1 .grey.*train_dataset"
    with pytest.raises(ConfigError, match=line):
        wrong.train()
    wrong.train_dataset = Numbers(2)
    wrong.set_with_test(True)
    with pytest.raises(ConfigError, match=line):  # the verification sets are images
        wrong.train()
