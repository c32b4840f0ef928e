"""Nets of one channel from the list to the Predictor, and of two channels with a user's own data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc import Entry, Predictor
from plsc.data import resize_image
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
    made.set("data.resize", "stretch")
    features = expected(folder, range(16))
    kit.assert_close(np.array(made.predict().features), features)
    assert made.test(html_file=str(tmp_path / "page.html"))["own"].num_different == 6
    with Predictor(made.convert_for_prediction()) as predictor:
        kit.assert_close(predictor.embed(grey(3)), features[3:4])
        kit.assert_close(predictor.embed(str(folder / "3.png")), features[3:4])
        colours = np.repeat(grey(3)[:, :, None], 3, axis=2)  # colours without colour are grey
        kit.assert_close(predictor.embed(colours), features[3:4])
        large = np.asarray(Image.fromarray(grey(3)).resize((96, 64), Image.Resampling.NEAREST))
        expected_pixels = np.asarray(Image.fromarray(large).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(predictor.prepare(large), net_input(expected_pixels))


def net_input(pixels: np.ndarray) -> np.ndarray:
    """Of grey values [H, W], by the formula in docs/using.md: float32 [1, H, W]."""
    return ((pixels.astype(np.float64) - 127.5) / 127.5)[None].astype(np.float32)


PEOPLE = ("ann", "bob", "cas", "dee")


def encoded(index: int) -> tuple[str, bytes, np.ndarray]:
    """(the ending of a file, an image as people have it, its grey values): grey and colour, JPEG, PNG and TIFF, some of
    another size."""
    height, width = [(HEIGHT, WIDTH), (64, 96), (40, 33)][index % 3]
    ending, mode = [("jpg", "L"), ("png", "L"), ("jpg", "RGB"), ("png", "LA"), ("tif", "I;16"), ("png", "P")][index % 6]
    if mode == "I;16":
        image = Image.fromarray(kit.pixels(index, height, width)[:, :, 0].astype(np.uint16) << 8)
    else:
        image = Image.fromarray(kit.pixels(index, height, width)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, {"jpg": "JPEG", "png": "PNG", "tif": "TIFF"}[ending])
    seen = np.asarray(image) >> 8 if mode == "I;16" else np.asarray(Image.open(stream).convert("RGB").convert("L"))
    return ending, stream.getvalue(), seen.astype(np.uint8)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """A folder of identities and a list of pairs of other images of theirs, and a finished run with augmentations."""
    root = tmp_path_factory.mktemp("people")
    for index in range(24):
        ending, data, _ = encoded(index)
        (root / "faces" / PEOPLE[index % 4]).mkdir(parents=True, exist_ok=True)
        (root / "faces" / PEOPLE[index % 4] / f"{index:02d}.{ending}").write_bytes(data)
    names = sorted(path.relative_to(root / "faces").as_posix() for path in (root / "faces").glob("*/*"))
    pairs = [f"{names[0]}\t{names[1 + pair % 2 * 11]}\t{1 - pair % 2}\n" for pair in range(12)]
    (root / "faces" / "pairs.txt").write_text("".join(pairs))
    data = {"dataset": "auto", "dataset_dir": str(root / "faces"), "val_targets": ["pairs.txt"], "resize": "pad"}
    data.update({"augmentations": "strong", "train_image_num": None, "num_workers": 1})
    classes = {"num_classes": None}
    result = Entry(config=settings(root, data=data, classifier=classes, with_test=True)).train()
    assert result.step == 2 and np.isfinite(result.loss) and result.verification["pairs.txt"].num_same == 6
    return root


def padded(pixels: np.ndarray) -> np.ndarray:
    return resize_image(pixels[:, :, None], HEIGHT, WIDTH, "pad", "x")[:, :, 0]


def test_a_folder_of_grey_images_all_the_way_with_the_settings_of_the_checkpoint(people, tmp_path):
    """Images of several kinds and sizes: predict, both exported models give what the evaluation
    program gives for their grey values."""
    order = sorted(range(24), key=lambda index: (index % 4, index))
    images = np.stack([net_input(padded(encoded(index)[2])) for index in order])
    shape, classes = {"image_shape": [1, HEIGHT, WIDTH]}, {"num_classes": len(PEOPLE)}
    features = kit.evaluation_program(str(people / "run"), images, model=shape, classifier=classes)
    kwargs = {"checkpoint_dir": str(people / "run"), "model_save_dir": str(tmp_path), "test_batch_size": 3}
    made = Entry(config={**kwargs, "export": {"format": "both", "with_classifier": True}})
    prediction = made.predict()
    assert [Path(path).parent.name for path in prediction.paths] == [PEOPLE[index % 4] for index in order]
    kit.assert_close(np.array(prediction.features), features)
    directory = made.convert_for_prediction()
    for runtime in ("paddle", "onnx"):
        with Predictor(directory, runtime) as predictor:
            kit.assert_close(predictor.embed([encoded(index)[1] for index in order]), features)
            kit.assert_close(predictor.embed(encoded(3)[2][:, :, None]), features[[order.index(3)]])
            best = predictor.classify(encoded(0)[1])
            assert predictor.class_names == list(PEOPLE) and best.names == [[PEOPLE[int(best.label[0, 0])]]]
    judged = Entry(config={**kwargs, "checkpoint_dir": directory, "data": {"dataset_dir": str(people / "faces"),
                                                                           "val_targets": ["pairs.txt"]}})  # fmt: skip
    assert judged.test()["pairs.txt"].num_same == 6


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
