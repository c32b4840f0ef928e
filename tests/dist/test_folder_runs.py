"""A folder of identities from training to names in a prediction, on one rank and on two."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc.data.packing.pack import pack
from plsc.data.sources.folder import FolderSource
from plsc.evaluation.bin_file import save_bin
from tests.dist import ranks
from tests.dist.folder_cases import SAVED, STEPS

# in the order of their bytes; 24 images are 3 steps of 8
NAMES = [b"Zo\xc3\xa9", b"a b", b"bob", b"new\nline", b"x.y", b"\xff"]
SHOWN = ["Zoé", "a b", "bob", "new\nline", "x.y", "\\xff"]
IMAGES = 4


def make_faces(root: Path, names: list[bytes]) -> list[bytes]:
    """A colour with noise for each; the paths in the order of the labels."""
    paths = []
    for name in names:
        folder = os.path.join(os.fsencode(root), name)
        os.makedirs(folder)
        rng = np.random.default_rng(list(name))
        for index in range(IMAGES):
            pixels = (rng.integers(0, 156, (1, 1, 3)) + rng.integers(0, 100, (16, 16, 3))).astype(np.uint8)
            paths.append(os.path.join(folder, b"%d.png" % index))
            with open(paths[-1], "wb") as file:
                Image.fromarray(pixels).save(file, "PNG")
    return paths


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> dict:
    where = tmp_path_factory.mktemp("folders")
    paths = make_faces(where / "faces", NAMES)
    listed = b"".join(b"%s\t%d\n" % (path, index // IMAGES) for index, path in enumerate(paths) if b"\n" not in path)
    (where / "list.txt").write_bytes(listed)
    shutil.copytree(where / "faces", where / "changed")
    make_faces(where / "changed" / "put", [b"b"])
    os.rename(where / "changed" / "put" / "b", where / "changed" / "b")  # between "a b" and "bob"
    os.rmdir(where / "changed" / "put")
    # a list cannot name what has a line's end in it: the folder that is compared with it has none
    shutil.copytree(where / "faces", where / "plain")
    os.rename(where / "plain" / "new\nline", where / "plain" / "new line")
    renamed = [path.replace(b"/faces/", b"/plain/").replace(b"new\nline", b"new line") for path in paths]
    listed = b"".join(b"%s\t%d\n" % (path, index // IMAGES) for index, path in enumerate(renamed))
    (where / "list.txt").write_bytes(listed)
    pack(FolderSource(where / "plain"), "recordio", str(where / "packed"))
    return {"faces": str(where / "faces"), "plain": str(where / "plain"), "list": str(where / "list.txt"),
            "packed": str(where / "packed"), "changed": str(where / "changed"), "paths": paths}  # fmt: skip


@pytest.fixture(scope="module")
def runs(faces, tmp_path_factory) -> dict[int, tuple[Path, dict]]:
    found = {}
    for number in (1, 2):
        cwd = tmp_path_factory.mktemp(f"ranks{number}")
        payload = {"ranks": number, "root": faces["plain"], "list": faces["list"], "packed": faces["packed"]}
        found[number] = cwd, ranks.run("tests.dist.folder_cases:trained", number, cwd, payload)[0]
    return found


@pytest.mark.parametrize("number", [1, 2])
def test_the_folder_is_the_list_of_its_images_to_the_bit(runs, number):
    cwd, losses = runs[number]
    assert len(losses["folder"]) == STEPS and losses["folder"] == losses["list"]
    assert losses["resumed"] == losses["folder"][SAVED:]
    assert len(set(losses["folder"])) == STEPS


def test_a_packed_folder_is_the_folder_with_its_names(runs):
    cwd, losses = runs[1]
    assert losses["packed"] == losses["folder"]
    of_folder, of_packed = (cwd / name / "checkpoints" / f"step_{STEPS:08d}" for name in ("folder", "packed"))
    assert json.loads((of_packed / "manifest.json").read_text())["config"]["data"]["dataset"] == "recordio"
    assert (of_packed / "class_names.json").read_bytes() == (of_folder / "class_names.json").read_bytes()


def test_one_rank_is_two(runs):
    # float32 sums in another order, over ten steps
    np.testing.assert_allclose(runs[1][1]["folder"], runs[2][1]["folder"], rtol=1e-4)


@pytest.mark.parametrize("number", [1, 2])
def test_what_was_left_open_is_said_and_stored(runs, faces, number):
    cwd, _ = runs[number]
    log = (cwd / "folder" / "logs" / "rank_00000.log").read_text()
    root = faces["plain"]
    for line in (
        f"data.dataset: auto takes folder: {root} has 6 folder(s), such as 'Zoé', and no list or container",
        f"classifier.num_classes: null: {root} has 6 classes",
        f"data.val_targets: null, and {root} has no verification set (*.bin): nothing is verified",
    ):
        assert log.count(line) == 1
    last = cwd / "folder" / "checkpoints" / f"step_{STEPS:08d}"
    manifest = json.loads((last / "manifest.json").read_text())
    assert manifest["num_classes"] == 6 and manifest["config"]["classifier"]["num_classes"] == 6
    assert (manifest["config"]["data"]["dataset"], manifest["data"]["kind"]) == ("folder", "folder")
    wanted = [name.replace("\n", " ") for name in SHOWN]
    assert json.loads((last / "class_names.json").read_text()) == wanted
    listed = json.loads((cwd / "list" / "checkpoints" / last.name / "manifest.json").read_text())
    assert listed["data"]["lines"] != manifest["data"]["lines"]  # whole paths
    assert "class_names.json" in manifest["files"] and "class_names.json" not in listed["files"]


@pytest.fixture(scope="module", params=[1, 2])
def wide(request, faces, tmp_path_factory) -> tuple[Path, dict]:
    cwd = tmp_path_factory.mktemp("wide")
    payload = {"ranks": request.param, "root": faces["faces"], "changed": faces["changed"]}
    ranks.run("tests.dist.folder_cases:wide", request.param, cwd, payload)
    return cwd, payload


def test_classes_without_images_and_other_labels_are_said(wide):
    log = (wide[0] / "wide" / "logs" / "rank_00000.log").read_text()
    assert "6 of 20 classes have images (classifier.num_classes=20; null counts them)" in log
    log = (wide[0] / "allowed" / "logs" / "rank_00000.log").read_text()
    assert "with other labels than wide/checkpoints/step_00000002 was trained with: 4 of 6 classes" in log


@pytest.mark.parametrize(
    ("case", "texts"),
    [
        ("renumbered", ["was trained with other labels: ", "accept_new_labels: true"]),
        ("another number", ["num_classes is 20 in the checkpoint and 7 in this run"]),
        ("named set", ["has no lfw.bin", "data.val_targets"]),
    ],
)
def test_what_is_refused_on_every_rank(wide, case, texts):
    cwd, payload = wide
    everyone = ranks.run("tests.dist.folder_cases:refused", payload["ranks"], cwd, {**payload, "case": case})
    assert all(found == everyone[0] for found in everyone)
    assert all(text in everyone[0] for text in texts), everyone[0]


def test_ranks_that_find_something_else_are_refused(faces, tmp_path):
    with_set = tmp_path / "with_set"
    shutil.copytree(faces["faces"], with_set)
    shutil.copytree(faces["packed"], tmp_path / "nameless")
    (tmp_path / "nameless" / "train.classes.tsv").unlink()
    images = [np.full((16, 16, 3), shade, np.uint8) for shade in range(40)]
    save_bin(with_set / "lfw.bin", images, [index % 2 == 0 for index in range(20)])
    for first, other, text in (
        (faces["faces"], faces["changed"], "the number of classes is 6 on rank 0 and 7 on rank 1"),
        (faces["faces"], str(with_set), "what was found is ['training'] on rank 0 and ['lfw', 'training'] on rank 1"),
        (faces["packed"], str(tmp_path / "nameless"), "the list of class names is '6 names (digest "),
    ):
        payload = {"roots": [first, other]}
        everyone = ranks.run("tests.dist.folder_cases:disagreeing", 2, tmp_path, payload)
        assert everyone[0] == everyone[1] and text in everyone[0], everyone


def test_the_exported_model_answers_with_names(runs, faces, tmp_path):
    """Those of the folder, which came to the model by the container that it was packed into."""
    payload = {"root": faces["plain"], "run": str(runs[1][0] / "packed"), "images": faces["paths"],
               "folder": faces["faces"]}  # fmt: skip
    (found,) = ranks.run("tests.dist.folder_cases:exported", 1, tmp_path, payload)
    names = [name.replace("\n", " ") for name in SHOWN]
    assert found["names"] == names
    scores, label = found["scores"], np.array(found["label"])
    assert scores.shape == (24, 6) and (np.sort(scores, axis=1)[:, :-3:-1] == np.array(found["score"])).all()
    np.testing.assert_array_equal(label, np.argsort(-scores, axis=1, kind="stable")[:, :2])
    assert found["best"] == [[names[one] for one in row] for row in label]
    table = list(csv.reader(found["table"].decode("utf-8", "surrogateescape").splitlines(keepends=True)))
    assert table[0] == ["row", "path", "label", "name", "score"] and len(table) == 25
    by_path = {os.fsencode(row[1]): row for row in table[1:]}
    for index, path in enumerate(faces["paths"]):
        _, _, one, name, score = by_path[path]
        assert (int(one), name) == (label[index, 0], names[label[index, 0]])
        assert abs(float(score) - scores[index].max()) < 1e-3  # six digits, batches of another size
    plain = list(csv.reader(found["plain"].decode("utf-8", "surrogateescape").splitlines(keepends=True)))
    assert plain[0] == ["row", "path"] and len(plain) == 25
