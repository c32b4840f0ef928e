"""Ranks that differ in settings, versions, data, checkpoints or weights: all end with one message that names both."""

from __future__ import annotations

import json
import re

import pytest

from tests.dist.consistency import DISKS, FINE, RANKS, REFUSED
from tests.dist.test_resume import run_process

SAVES = ("weights", "weights, waiting", "rows")  # found at a save, all others before a step is made

SAID = {
    "lr": ["lr is 6.0 on rank 0 and 0.2 on rank 2:"],
    "classifier.scale": ["classifier.scale is 8.0 on rank 0 and 9.0 on rank 1"],
    "classifier.margin2": ["classifier.margin2 is None on rank 0 and 0.3 on rank 1"],
    "data.train_image_num": ["data.train_image_num is None on rank 0 and 60 on rank 1"],
    "classifier.num_classes": ["classifier.num_classes is 8 on rank 0 and 9 on rank 1"],
    "train_batch_size": ["train_batch_size is 2 on rank 0 and 3 on rank 1", "same settings"],
    "seed": ["seed is 11 on rank 0 and 12 on rank 1"],
    "model_save_dir": ["model_save_dir is ", "'elsewhere' on rank 1"],
    "permuted": ["training: the data of rank 1", "the same 24 lines are in another order"],
    "shifted": ["training: the data of rank 1", "the same 24 images have other labels"],
    "longer": ["training: the data of rank 1", "of 32 lines instead of 24"],
    "length": ["train_dataset", "of 51 images instead of", "of 52 images"],
    "data set": ["train_dataset is ", "tiny_run.Pictures' on rank 0", "OtherPictures' on rank 1"],
    "model": ["model is ", "tiny_run.TinyNet' on rank 0", "OtherNet' on rank 1"],
    "reader": ["train_reader: has 16 samples on rank 0 and 17 on rank 1"],
    "rate": ["optimizer is ", "Adam, learning rate 0.1' on rank 0", "Adam, learning rate 0.2' on rank 1"],
    "sets": ["lfw: the data of rank 1", "other contents"],
    "paddle": ["the version of Paddle is ", "9' on rank 1", "same packages"],
    "numpy": ["the version of NumPy is ", ".999' on rank 1"],
    "plsc": ["the version of PLSC is ", "'9.9.9' on rank 1"],
    "device": ["the device used is 'cpu' on rank 0 and 'gpu' on rank 1"],
    "weights": ["cannot save the checkpoint of step 4", "such as the backbone", "rank(s) 2 ", "checksums"],
    "weights, waiting": ["cannot save the checkpoint of step 4", "rank(s) 1 ", "checksums"],
    "rows": ["cannot save the checkpoint of step 4", "rank(s) 1 ", "checksums"],
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("alike")
    return cwd, run_process("tests.dist.consistency", cwd)


def error_lines(cwd, name: str, ranks: int) -> list[str]:
    """What each rank said last, without its number."""
    lines = []
    for rank in range(ranks):
        log = (cwd / name / f"rank{rank}.log").read_text(errors="replace")
        assert "Traceback" not in log, log[-3000:]
        (line,) = re.findall(rf"^plsc: error: \[rank {rank}\] (.*)$", log, re.MULTILINE)
        lines.append(line)
    return lines


@pytest.mark.parametrize("name", REFUSED)
def test_one_message_on_all_ranks(outcome, name):
    cwd, report = outcome
    ranks = RANKS.get(name, 2)
    assert report[name] == [1] * ranks
    lines = error_lines(cwd, name, ranks)
    assert len(set(lines)) == 1, lines
    assert [part for part in SAID[name] if part not in lines[0]] == [], lines[0]
    run = cwd / name / "run"
    if name in SAVES:
        assert list((run / "checkpoints").glob("*")) == []  # nothing visible, nothing half done
    else:
        log = run / "logs" / "rank_00000.log"
        assert not log.exists() or ("train: " not in log.read_text() and name == "reader")


@pytest.mark.parametrize("name, text", [
    ("processor", "the ranks differ: the processor is "),
    ("compiled", "the ranks differ: rank(s) 0 cannot use the operations in C++"),
])  # fmt: skip
def test_what_only_rounds_is_said_on_every_rank(outcome, name, text):
    cwd, report = outcome
    assert report[name] == [0, 0]
    for rank in (0, 1):
        assert (cwd / name / "run" / "logs" / f"rank_{rank:05d}.log").read_text().count(text) == 1


def test_another_bug_fix_release_of_numpy_is_no_matter(outcome):
    cwd, report = outcome
    assert set(FINE) == {"processor", "compiled", "bug fix"} and report["bug fix"] == [0, 0]
    assert "the ranks differ" not in (cwd / "bug fix" / "run" / "logs" / "rank_00000.log").read_text()


@pytest.mark.parametrize("name", DISKS)
def test_checkpoints_of_one_name_on_two_disks_are_not_mixed(outcome, name):
    cwd, report = outcome
    assert report["disks"] == [0, 0] and report[name] == [1, 1]
    lines = error_lines(cwd, name, 2)
    assert len(set(lines)) == 1, lines
    for disk in (0, 1):
        assert str(cwd / f"disk{disk}" / "run" / "checkpoints" / "step_00000004") in lines[0]
    assert "of rank(s) 1 is another checkpoint" in lines[0]


@pytest.mark.parametrize("name, text", [
    ("label_map", "label_map='map.txt': rank(s) 1 map the classes otherwise"),
    ("exported", "the model in net/inference is "),
    ("pictures", "the images to predict is '24 images, checksum "),
])  # fmt: skip
def test_other_files_of_one_name_are_not_mixed(outcome, name, text):
    cwd, report = outcome
    assert report[name] == [1, 1]
    lines = error_lines(cwd, name, 2)
    assert len(set(lines)) == 1 and text in lines[0], lines


def test_another_run_that_is_damaged_puts_nothing_aside(outcome):
    cwd, report = outcome
    assert report["damaged"] == [1, 1]
    assert "of rank(s) 1 is another checkpoint" in error_lines(cwd, "damaged", 2)[0]
    for disk in (0, 1):
        names = [path.name for path in (cwd / f"disk{disk}" / "run" / "checkpoints").iterdir() if path.is_dir()]
        assert names == ["step_00000004"]


def said(cwd, name: str) -> list[str]:
    log = (cwd / name / "run" / "logs" / "rank_00000.log").read_text()
    return [line.split(" INFO ")[1] for line in log.splitlines() if "other data" in line or "does not record" in line]


def test_the_same_data_are_no_news(outcome):
    cwd, report = outcome
    assert report["on with plain"] == [0] and said(cwd, "on with plain") == []


@pytest.mark.parametrize("name, text", [
    ("on with longer", "a list of 32 lines instead of 24, whose beginning is the same"),
    ("on with permuted", "the same 24 lines are in another order"),
    ("on with shifted, told", "the same 24 images have other labels"),
    ("on from an old one", "does not record its training data"),
])  # fmt: skip
def test_other_data_are_said_in_one_line(outcome, name, text):
    cwd, report = outcome
    (line,) = said(cwd, name)
    assert report[name] == [0] and text in line and str(cwd / "first" / "run") in line


def test_other_labels_are_refused_unless_told(outcome):
    cwd, report = outcome
    assert report["on with shifted"] == [1]
    (line,) = error_lines(cwd, "on with shifted", 1)
    for part in ("the same 24 images have other labels", "init_from: classes", "accept_new_labels: true"):
        assert part in line


def test_another_number_of_classes_names_the_way_out(outcome):
    cwd, report = outcome
    assert report["on with more classes"] == [1]
    (line,) = error_lines(cwd, "on with more classes", 1)
    for part in ("num_classes is 10 in the checkpoint and 9 in this run", "classifier.num_classes: 10", "init_from"):
        assert part in line


def test_classes_without_a_picture_are_said(outcome):
    log = (outcome[0] / "first" / "run" / "logs" / "rank_00000.log").read_text()
    assert "8 of 10 classes have images (classifier.num_classes=10; null counts them): the others cost memory" in log


def test_the_manifest_has_a_record_of_the_data(outcome):
    path = outcome[0] / "on with plain" / "run" / "checkpoints" / "step_00000008" / "manifest.json"
    data = json.loads(path.read_text())["data"]
    assert (data["kind"], data["images"], data["num_classes"], data["labels"]) == ("list", 24, 10, 8)
    own = outcome[0] / "processor" / "run" / "checkpoints" / "step_00000004" / "manifest.json"
    assert json.loads(own.read_text())["data"] == {
        "kind": "train_dataset", "type": "tests.dist.tiny_run.Pictures", "images": 52, "num_classes": 8,
    }  # fmt: skip
