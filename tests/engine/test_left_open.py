"""What a run settles by looking at its data: the source, the number of classes, the verification sets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.evaluation import left_open
from plsc.engine.evaluation.data import check_training_data, check_verification, make_training_data
from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import save_bin
from plsc.parallel.environment import Environment


def put(root, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 5, 3), 90, np.uint8)).save(root / path)


def settings(root, **changes) -> Config:
    config = Config.from_dict({
        "data": {"dataset_dir": str(root)}, "model": {"image_shape": [3, 6, 5]}, "train_batch_size": 2, "seed": 4,
        "classifier": {"num_classes": None},
    })  # fmt: skip
    for key, value in changes.items():
        config.set(key.replace("__", "."), value)
    return config


def add_set(path) -> None:
    images = [np.full((6, 5, 3), shade, np.uint8) for shade in range(40)]
    save_bin(path, images, [index % 2 == 0 for index in range(20)])


def test_everything_is_settled_and_said(tmp_path):
    put(tmp_path, "ann/1.png", "bob/1.png", "bob/2.png", "cy/.x.png", "cy/1.png")
    add_set(tmp_path / "b.bin")
    add_set(tmp_path / "a.bin")
    (tmp_path / "records.bin").write_bytes(b"RIFF")
    config, notes = settings(tmp_path), []
    found = check_training_data(config, UserObjects(), Environment(), notes)
    assert (config.data.dataset, config.classifier.num_classes, config.data.val_targets, config.with_test) == (
        "folder", 3, ["a", "b"], True)  # fmt: skip
    assert sorted(found) == ["a", "b", "training"] and found["training"]["num_classes"] == 3
    assert notes == [
        "data.val_targets: null passes over records.bin: no verification set by the first byte",
        f"data.val_targets: null takes what is in {tmp_path}: a.bin, b.bin",
        f"data.dataset: auto takes folder: {tmp_path} has 3 folder(s), such as 'ann', and no list or container",
        f"classifier.num_classes: null: {tmp_path} has 3 classes",
        f"{tmp_path}: passed over 3 file(s) beside the folders of the identities, such as '{tmp_path}/a.bin'",
        f"{tmp_path}: passed over 1 hidden name(s), which begin with a dot, such as '{tmp_path}/cy/.x.png'",
    ]
    data = make_training_data(config, UserObjects(), 4)
    assert (len(data), list(data.class_names)) == (4, ["ann", "bob", "cy"])


def test_what_is_set_stays(tmp_path):
    put(tmp_path, "ann/1.png", "bob/1.png")
    add_set(tmp_path / "a.bin")
    add_set(tmp_path / "b.bin")
    config, notes = settings(tmp_path, data__dataset="folder", data__val_targets=["b"], classifier__num_classes=9), []
    check_training_data(config, UserObjects(), Environment(), notes)
    assert (config.classifier.num_classes, config.data.val_targets) == (9, ["b"])
    assert len(notes) == 1 and "passed over 2 file(s)" in notes[0]


def test_a_list_that_is_set_is_meant(tmp_path):
    put(tmp_path, "ann/1.png", "bob/1.png")
    config = settings(tmp_path, data__label_file="lable.txt")
    with pytest.raises(DataError, match=r"^label list '.*lable.txt' not found"):
        check_training_data(config, UserObjects(), Environment(), notes := [])
    assert notes[-1] == "data.dataset: auto takes list: data.label_file='lable.txt' is set"


def test_a_list_is_counted(tmp_path):
    put(tmp_path, "1.png", "2.png")
    (tmp_path / "label.txt").write_text("1.png\t0\n2.png\t6\n")
    config, notes = settings(tmp_path), []
    assert check_training_data(config, UserObjects(), Environment(), notes)["training"]["labels"] == 2
    assert config.classifier.num_classes == 7
    assert notes[-1] == f"classifier.num_classes: null: {tmp_path}/label.txt has 7 classes"


def test_ranks_that_cannot_share_what_was_counted(tmp_path):
    put(tmp_path, *(f"{name}/{number}.png" for name in "abcdefghi" for number in range(2)))
    with pytest.raises(ConfigError, match="classifier.num_classes=9: 4 ranks of 3 classes each leave the last one"):
        check_training_data(settings(tmp_path), UserObjects(), Environment(world_size=4))


@pytest.mark.parametrize(
    ("objects", "text"),
    [
        ({"train_dataset": [1, 2]}, "training data of your own (train_dataset, train_reader) does not tell them"),
        ({"train_reader": lambda: []}, "training data of your own (train_dataset, train_reader) does not tell them"),
    ],
)
def test_data_that_cannot_be_counted(tmp_path, objects, text):
    with pytest.raises(DataError) as caught:
        check_training_data(settings(tmp_path, with_test=False), UserObjects(**objects), Environment())
    assert text in str(caught.value) and str(caught.value).startswith("classifier.num_classes: null counts the classes")


@pytest.mark.parametrize("counted", [0, 1, 2**31, "7", True])
def test_a_count_that_is_none(tmp_path, counted):
    with pytest.raises(DataError, match="a classifier needs at least 2"):
        left_open.settle_classes(settings(tmp_path), counted, "here", [])


def test_without_a_set_training_does_not_verify_but_verify_says_so(tmp_path):
    put(tmp_path, "ann/1.png", "bob/1.png")
    config, notes = settings(tmp_path), []
    assert list(check_training_data(config, UserObjects(), Environment(), notes)) == ["training"]
    assert not config.with_test and notes[0].endswith("has no verification set (*.bin): nothing is verified")
    with pytest.raises(DataError, match="has no verification set .*; name sets in data.val_targets, or correct"):
        check_verification(settings(tmp_path), UserObjects())
    with pytest.raises(DataError, match="has no lfw.bin"):
        check_training_data(settings(tmp_path, data__val_targets=["lfw"]), UserObjects(), Environment())
    with pytest.raises(ConfigError, match="best_metric='lfw.auc': must be a set .* sets: none;"):
        check_training_data(settings(tmp_path, best_metric="lfw.auc"), UserObjects(), Environment())


def test_verify_takes_the_sets_that_are_there(tmp_path):
    add_set(tmp_path / "b.bin")
    config = settings(tmp_path)
    assert list(check_verification(config, UserObjects())) == ["b"] and config.data.val_targets == ["b"]


def test_synthetic_images_need_no_directory(tmp_path):
    config = settings(tmp_path / "gone", data__dataset="synthetic", classifier__num_classes=4)
    assert list(check_training_data(config, UserObjects(), Environment(), notes := [])) == ["training"]
    assert not config.with_test and len(notes) == 1
    with pytest.raises(DataError, match="classifier.num_classes: null counts the classes, and .* set the number"):
        check_training_data(settings(tmp_path, data__dataset="synthetic"), UserObjects(), Environment())
