"""`plsc clean` on a small net that is trained on pictures with planted errors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc import Entry
from plsc.errors import ConfigError, DataError
from tests.tool_kit import plsc

CLASSES, EACH, SIDE = 12, 12, 32


def picture(pattern: np.ndarray, draw: np.random.Generator) -> Image.Image:
    """Tiles in the colours of the class, brighter or darker, with noise."""
    noise = draw.normal(0, 25, (SIDE, SIDE, 3)) + draw.normal(0, 12, 3)
    return Image.fromarray(np.clip(pattern.repeat(8, 0).repeat(8, 1) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """data/label.txt with 14 wrong labels and a picture that is in two classes; data/lfw.bin with two training
    pictures, data/faces/ with a class and a stranger; run, trained on it."""
    home = tmp_path_factory.mktemp("clean")
    data, draw = home / "data", np.random.default_rng(0)
    patterns = draw.integers(40, 216, (CLASSES + 11, 4, 4, 3))
    lines = []
    for label in range(CLASSES):
        (data / f"c{label:02d}").mkdir(parents=True)
        for number in range(EACH):
            path = f"c{label:02d}/{number:02d}.png"
            picture(patterns[label], draw).save(data / path)
            lines.append([path, label])
    wrong = draw.choice(len(lines), 14, replace=False)
    for index in wrong:
        lines[index][1] = (lines[index][1] + int(draw.integers(1, CLASSES))) % CLASSES
    (home / "wrong.json").write_text(json.dumps([lines[index][0] for index in wrong]))
    right = [line for index, line in enumerate(lines) if index not in wrong]
    twice, leaked = right[0], right[20:22]
    lines.append(["twice.png", (twice[1] + 5) % CLASSES])
    (home / "twice.txt").write_text(twice[0])
    (data / "twice.png").write_bytes((data / twice[0]).read_bytes())
    (data / "label.txt").write_text("".join(f"{path}\t{label}\n" for path, label in lines))
    _name_classes(data / "label.classes.tsv", [f"class {label}" for label in range(CLASSES)], lines)
    pairs = [(data / path).read_bytes() for path, _ in leaked]
    for number in range(10):
        picture(patterns[CLASSES + number], draw).save(home / "one.png")
        pairs.append((home / "one.png").read_bytes())
    (data / "lfw.bin").write_bytes(pickle.dumps((pairs, [False, True, False, True, False, True]), protocol=4))
    for name, pattern in (("known", patterns[3]), ("stranger", patterns[-1])):
        (data / "faces" / name).mkdir(parents=True)
        for number in range(4):
            picture(pattern, draw).save(data / "faces" / name / f"{number}.png")
    Entry(config={
        "model": {"name": "ResNet10", "base_width": 8, "image_shape": [3, SIDE, SIDE], "embedding_size": 16},
        "classifier": {"num_classes": CLASSES, "scale": 16},
        "data": {"dataset": "list", "dataset_dir": str(data), "num_workers": 0, "random_flip": False}, "lr": 0.05,
        "lr_reference_batch": 24, "train_steps": 60, "train_batch_size": 24, "with_test": False, "seed": 1,
        "test_batch_size": 16, "model_save_dir": str(home / "run"),
    }).train()  # fmt: skip
    return home


def _name_classes(file: Path, names: list[str], lines: list) -> None:
    counts = [sum(label == one for _, label in lines) for one in range(CLASSES)]
    rows = [f"{label}\t{name}\t{counts[label]}\n" for label, name in enumerate(names)]
    file.write_text("label\tname\timages\n" + "".join(rows))


def clean(home: Path, *options: str, output: str = "found") -> str:
    sets = "data.val_targets=[lfw, faces/]"
    done = plsc("clean", "--checkpoint", str(home / "run"), "--output", str(home / output), "-o", sets, "--processes",
                "0", *options)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_finds_what_was_planted(home):
    said = clean(home, "--list", str(home / "cleaned.txt"), "--html", str(home / "page.html"), "--json",
                 str(home / "found.json"))  # fmt: skip
    found = json.loads((home / "found.json").read_text())
    wrong = set(json.loads((home / "wrong.json").read_text()))
    before = dict(line.split("\t") for line in (home / "data" / "label.txt").read_text().splitlines())
    flagged = {before_path(one["name"]) for one in found["mislabelled"]}
    assert flagged <= {*wrong, "twice.png"} and len(flagged & wrong) >= 10  # of 14
    for one in found["mislabelled"]:  # the folder says what it is
        path = before_path(one["name"])
        assert path == "twice.png" or one["nearest"] == int(path[1:3])
    (copy,) = found["copies"]
    twice = {before_path(copy["name"]), before_path(copy["other"]["name"])}
    assert twice == {"twice.png", (home / "twice.txt").read_text()} and copy["bits"] == 0
    assert {(one["set"], one["image"]) for one in found["leaks"] if one["bits"] == 0} == {("lfw", 0), ("lfw", 1)}
    assert any(one["set"] == "faces/" and one["label"] == 3 and one["images"] == [0, 1, 2, 3] for one in found["known"])
    assert not any(one["set"] == "faces/" and one["images"][0] >= 4 for one in found["known"])
    after = dict(line.split("\t") for line in (home / "cleaned.txt").read_text().splitlines())
    gone = [line.split("\t") for line in (home / "cleaned.txt.removed.tsv").read_text().splitlines()]
    assert {**after, **{path: label for path, label, _, _ in gone}} == before and len(after) + len(gone) == len(before)
    assert {path for path, _, kind, _ in gone if kind == "mislabelled"} == flagged - {
        path for path, _, kind, _ in gone if kind == "leak"
    }
    assert f"{len(after)} of {len(before)} images, without 2 leak, " in said
    page = (home / "page.html").read_text()
    for title in ("Mislabelled images", "Copies in two classes", "Leaks", "Known identities"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<img") >= 2 * len(flagged) and "<script" not in page


def before_path(name: str) -> str:
    """`label.txt:3: image 'c00/02.png'` -> c00/02.png"""
    return name.split("'")[1]


def test_embeddings_are_kept_and_nothing_is_overwritten(home):
    clean(home)
    text = clean(home, "--remove", "copy,leak", "--list", str(home / "second.txt"), "--far", "0")
    assert "are already in" in text and "without 2 leak" in text and "mislabelled;" not in text
    before = (home / "second.txt").read_bytes()
    for there in ("second.txt", "second.txt.removed.tsv"):
        done = plsc("clean", "--checkpoint", str(home / "run"), "--output", str(home / "new"), "--list",
                    str(home / "second.txt"))  # fmt: skip
        assert done.returncode == 1 and "exists, and is not overwritten" in done.stderr, there
        assert not (home / "new" / "clean").exists()  # before the work
        if there == "second.txt":
            assert (home / "second.txt").read_bytes() == before
            (home / "second.txt").unlink()


@pytest.mark.parametrize("override, text", [
    ("data.label_file=other.txt", "class 1 is 'somebody', but 'class 1' in the checkpoint"),
    ("data.val_targets=[lfw, nowhere]", "has no nowhere.bin"),
])  # fmt: skip
def test_other_classes_and_missing_sets_are_told_before_the_work(home, override, text):
    data = home / "data"
    (data / "other.txt").write_bytes((data / "label.txt").read_bytes())
    names = (data / "label.classes.tsv").read_text().replace("class 1\t", "somebody\t")
    (data / "other.classes.tsv").write_text(names)
    done = plsc("clean", "--checkpoint", str(home / "run"), "--output", str(home / "early"), "-o", override)
    assert done.returncode == 1 and text in done.stderr and not (home / "early" / "clean").exists()


@pytest.mark.parametrize("options, text", [
    (["--far", "1.5"], "--far 1.5: a cosine is from -1 to 1"),
    (["--remove", "copy"], "--remove copy: has an effect with --list only"),
    (["--remove", "copy,blur", "--list", "x"], "'blur' is none of leak, mislabelled, copy, outlier, known"),
    (["--processes", "-1"], "--processes -1: must be from 0 to"),
    (["--html", "/nowhere/x.html"], "--html /nowhere/x.html: the directory /nowhere does not exist"),
])  # fmt: skip
def test_wrong_options_are_one_line(tmp_path, options, text):
    done = plsc("clean", "--checkpoint", str(tmp_path), "--output", str(tmp_path / "out"), *options)
    assert done.returncode != 0 and text in done.stderr and "Traceback" not in done.stderr


def test_data_of_ones_own_and_exported_models_are_refused(home, tmp_path):
    config = {"checkpoint_dir": str(home / "run"), "model_save_dir": str(tmp_path)}
    entry = Entry(config=config)
    entry.test_dataset = []
    with pytest.raises(DataError, match=r"^test_dataset: clean reads a data source"):
        entry.clean()
    exported = Path(Entry(config=config).convert_for_prediction())
    with pytest.raises(ConfigError, match="is an exported model; clean needs the centres of the classes"):
        Entry(config={**config, "checkpoint_dir": str(exported)}).clean()
