"""`data.resize` gives equal pixels in training, in verification and to an exported model, which keeps it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc import Entry, Predictor
from plsc.checkpoint.manifest import MANIFEST, MANIFEST_SUM, manifest_sum
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data import normalise, resize_image
from plsc.engine.evaluation.data import check_training_data, check_verification, make_training_data
from plsc.engine.evaluation.sets import reader
from plsc.errors import DataError, ExportError
from plsc.evaluation.bin_file import save_bin
from plsc.evaluation.identity_sets import load_set
from plsc.evaluation.metric import PAIRS
from plsc.parallel.environment import Environment
from tests import using_kit as kit

SIZES = [(32, 48), (64, 96), (20, 90), (77, 11), (33, 47)]
HEIGHT, WIDTH = kit.SHAPE[1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of several sizes, in a list and in a verification set."""
    folder = tmp_path_factory.mktemp("sizes")
    images = [kit.pixels(index, *SIZES[index % len(SIZES)]) for index in range(20)]
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index}.png")
    (folder / "label.txt").write_text("".join(f"{index}.png\t{index % 4}\n" for index in range(20)))
    save_bin(folder / "own.bin", images, [True, False] * 5)
    return folder


def settings(folder: Path, resize: str) -> dict:
    data = {"dataset": "list", "dataset_dir": str(folder), "val_targets": ["own"], "train_image_num": None}
    return kit.settings(data={**data, "random_flip": False, "resize": resize})


def described(exported: str, where: Path, **changes) -> Path:
    """A copy of the exported model with another description; a key with the value "none" is not in it."""
    copy = Path(shutil.copytree(exported, where))
    about = json.loads((copy / "plsc.json").read_text()) | changes
    (copy / "plsc.json").write_text(json.dumps({key: value for key, value in about.items() if value != "none"}))
    return copy


def old_checkpoint(run: str, where: Path) -> Path:
    """A copy of a run whose manifest has no data.resize, as those of earlier versions."""
    copy = Path(shutil.copytree(run, where))
    (path,) = copy.glob(f"checkpoints/*/{MANIFEST}")
    content = json.loads(path.read_text())
    del content["config"]["data"]["resize"]
    path.write_text(json.dumps(content))
    path.with_name(MANIFEST_SUM).write_bytes(manifest_sum(path.read_bytes()))
    return copy


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
def test_equal_pixels_in_the_three_places(folder, exported, tmp_path, how):
    config, own = Config.from_dict(settings(folder, how)), UserObjects()
    notes: list[str] = []
    check_training_data(config, own, Environment(), notes)
    assert [line for line in notes if line.startswith("data: images of another size than 48 x 32 are ")]
    training, found = make_training_data(config, own, 1), load_set(folder / "own.bin", "own", {PAIRS})
    check_verification(config, own)
    verification = reader(config, found)
    predictor = Predictor(described(exported, tmp_path / "model", resize=how))
    for index in range(len(SIZES)):
        pixels = resize_image(kit.pixels(index, *SIZES[index]), HEIGHT, WIDTH, how, "x")
        expected = normalise(pixels, 127.5)
        np.testing.assert_array_equal(training.get(index, 0)[0], expected)
        np.testing.assert_array_equal(verification(index), expected)
        np.testing.assert_array_equal(predictor.prepare(folder / f"{index}.png"), expected)


def test_all_three_refuse_in_the_same_words(folder, exported, tmp_path):
    config, own = Config.from_dict(settings(folder, "refuse")), UserObjects()
    check_training_data(config.copy(), own, Environment(), notes := [])
    assert not [line for line in notes if "another size" in line]
    line = "is 90 x 20 pixels .width x height., model.image_shape requires 48 x 32: .*Predictor's resize"
    with pytest.raises(DataError, match=f"label.txt:3: image '2.png': {line}"):
        make_training_data(config, own, 1).get(2, 0)
    with pytest.raises(DataError, match=f"own, image 2: {line}"):
        reader(config, load_set(folder / "own.bin", "own", {PAIRS}))(2)
    with pytest.raises(DataError, match=line):
        Predictor(described(exported, tmp_path / "model", resize="refuse")).prepare(folder / "2.png")


def test_what_an_export_keeps_is_what_predictor_does(folder, exported, tmp_path, caplog):
    assert json.loads(Path(exported, "plsc.json").read_text())["resize"] == "refuse"  # the default of training
    wide = kit.pixels(2, *SIZES[2])
    with pytest.raises(DataError, match="is 90 x 20 pixels"):
        Predictor(exported).prepare(wide)
    padded = normalise(resize_image(wide, HEIGHT, WIDTH, "pad", "x"), 127.5)
    with caplog.at_level(logging.INFO, "plsc.serving"):
        np.testing.assert_array_equal(Predictor(exported, resize="pad").prepare(wide), padded)
        assert not caplog.messages  # who chose it knows
        asked = Predictor(described(exported, tmp_path / "pad", resize="pad"))
        np.testing.assert_array_equal(asked.prepare(wide), padded)
        asked.prepare(wide)
    (line,) = caplog.messages
    assert "an image of 90 x 20 pixels (width x height) is resized to 48 x 32 (resize: pad" in line and "\n" not in line
    with pytest.raises(ExportError, match="plsc.json: damaged at resize"):
        Predictor(described(exported, tmp_path / "damaged", resize="squash"))


def predicted(folder: Path, model: Path | str, where: Path, **changes) -> np.ndarray:
    entry = Entry(config={"checkpoint_dir": str(model), "model_save_dir": str(where), "test_batch_size": 3,
                          "predict": {"images": str(folder)}, **changes})  # fmt: skip
    return np.array(entry.predict().features)


def test_models_of_earlier_versions_are_used_as_they_were(folder, trained_run, exported, tmp_path, caplog):
    """Predictor and predict stretch, verification refuses."""
    few = tmp_path / "few"
    few.mkdir()
    for index in (1, 2):
        shutil.copy(folder / f"{index}.png", few)
    stretched = [resize_image(kit.pixels(i, *SIZES[i]), HEIGHT, WIDTH, "stretch", "x") for i in (1, 2)]
    expected = kit.evaluation_program(trained_run, np.concatenate([kit.net_input(image) for image in stretched]))
    old_model = described(exported, tmp_path / "model", resize="none")
    kit.assert_close(Predictor(old_model).embed([few / "1.png", few / "2.png"]), expected)
    assert len(caplog.messages) == 1 and "resize: stretch" in caplog.messages[0]
    for name, model in (("exported", old_model), ("checkpoint", old_checkpoint(trained_run, tmp_path / "run"))):
        kit.assert_close(predicted(few, model, tmp_path / name), expected)
        log = (tmp_path / name / "logs" / "rank_00000.log").read_text()
        assert log.count("are stretched (resize: stretch)") == 1
        with pytest.raises(DataError, match="own, image 1: is 96 x 64 pixels"):
            verify(folder, model, tmp_path / f"{name} verified")


def verify(folder: Path, model: Path | str, where: Path, **data) -> str:
    """Verify with the defaults, be it an exported model; returns the log."""
    keys = {"dataset_dir": str(folder), "val_targets": ["own"], **data}
    config = {"checkpoint_dir": str(model), "model_save_dir": str(where), "test_batch_size": 3, "data": keys}
    assert Entry(config=config).test()["own"].num_same == 5
    return (where / "logs" / "rank_00000.log").read_text()


@pytest.mark.parametrize("kind", ["checkpoint", "exported"])
def test_predict_and_verify_do_what_training_did(folder, trained_run, exported, tmp_path, kind):
    model: Path | str = trained_run
    if kind == "exported":
        model = described(exported, tmp_path / "model", resize="crop")
        assert "test: images of another size than 48 x 32 are cropped" in verify(folder, model, tmp_path / "verified")
        # what is set counts
        assert "are stretched (resize: stretch)" in verify(folder, model, tmp_path / "stretched", resize="stretch")
    else:
        with pytest.raises(DataError, match="is 96 x 64 pixels"):
            predicted(folder, model, tmp_path / "refused")
    how = {"exported": {}, "checkpoint": {"data": {"resize": "crop"}}}[kind]
    found = predicted(folder, model, tmp_path / "out", **how)
    order = sorted(range(20), key=lambda index: f"{index}.png")
    cropped = [resize_image(kit.pixels(i, *SIZES[i % 5]), HEIGHT, WIDTH, "crop", "x") for i in order]
    kit.assert_close(found, kit.evaluation_program(trained_run, np.concatenate([kit.net_input(i) for i in cropped])))


def test_a_run_that_continues_with_another_mode_says_so(trained_run, tmp_path):
    run = old_checkpoint(trained_run, tmp_path / "run")  # which refused
    for steps, resize, told in ((5, "refuse", 0), (6, "pad", 1)):
        data = {"dataset": "synthetic", "train_image_num": 64, "num_workers": 0, "resize": resize}
        Entry(config=kit.settings(model_save_dir=str(run), data=data, train_steps=steps, resume="auto")).train()
        log = (run / "logs" / "rank_00000.log").read_text()
        assert log.count("was trained with data.resize='refuse', this run continues with 'pad': images of") == told
