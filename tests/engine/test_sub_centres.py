"""A model with several centres per class in what follows training: merged, exported, cleaned, fine-tuned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plsc import Entry, Predictor, checkpoint
from plsc.cleaning.centre_use import CentreUse, dominant, keep
from plsc.errors import CheckpointError, ConfigError
from tests import using_kit as kit
from tests.cli.test_clean import picture
from tests.tool_kit import plsc

NUMBER, SIZE, CLASSES, SIDE = 3, 16, 12, 32
FAR = np.cos(np.radians(75))
THREE = {"classifier": {"num_classes": CLASSES, "scale": 16, "sub_centres": NUMBER, "sample_ratio": 0.5}}


def settings(home: Path, run: str, **changes) -> dict:
    values = {
        "model": {"name": "ResNet10", "base_width": 8, "image_shape": [3, SIDE, SIDE], "embedding_size": SIZE},
        "data": {"dataset": "folder", "dataset_dir": str(home / "data"), "num_workers": 0, "random_flip": False},
        "lr": 0.05, "lr_reference_batch": 12, "train_steps": 12, "train_batch_size": 12, "with_test": False, "seed": 1,
        "test_batch_size": 16, "model_save_dir": str(home / run), "memory_check": False, **THREE, **changes,
    }  # fmt: skip
    return values


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """data/: 12 classes of 8 pictures, of each one two of another class; run: trained on it, its rows pending."""
    home, draw = tmp_path_factory.mktemp("sub_centres"), np.random.default_rng(0)
    patterns = draw.integers(40, 216, (CLASSES, 4, 4, 3))
    for label in range(CLASSES):
        (home / "data" / f"c{label:02d}").mkdir(parents=True)
        for number in range(8):
            drawn = label if number > 1 else (label + 1 + number) % CLASSES
            picture(patterns[drawn], draw).save(home / "data" / f"c{label:02d}" / f"{number}.png")
    Entry(config=settings(home, "run")).train()
    return home


@pytest.fixture(scope="module")
def merged(home) -> Path:
    """merged: the run with one centre of each class, by the command."""
    done = plsc("merge-centres", "--checkpoint", str(home / "run"), "--output", str(home / "merged"))
    assert done.returncode == 0, done.stderr
    (home / "said.txt").write_text(done.stdout)
    return home / "merged"


def stored(run: Path, as_stored: bool = False) -> tuple[checkpoint.Manifest, dict[str, np.ndarray]]:
    """(the manifest; {tensor of the classes: its rows})."""
    path = checkpoint.resolve(str(run))
    manifest, found = checkpoint.read_manifest(path), {}
    for name, _, rows in checkpoint.read_rows(path, manifest, 0, CLASSES, checkpoint.ReadOptions(stored=as_stored)):
        found.setdefault(name, []).append(rows)
    return manifest, {name: np.concatenate(rows) for name, rows in found.items()}


def nearest_by_loops(home: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(how many images of each class are nearest to each of its centres; cosines of the images with all centres)."""
    embeddings = np.load(home / "merged" / "clean" / "features.npy").astype(np.float64)
    names = [line.split(",")[1] for line in (home / "merged" / "clean" / "pictures.csv").read_text().splitlines()[1:]]
    labels = [int(Path(name).parent.name[1:]) for name in names]
    counts, cosines = np.zeros((CLASSES, NUMBER), int), np.zeros((len(labels), NUMBER))
    for image, label in enumerate(labels):
        centres = rows[label].reshape(NUMBER, SIZE).astype(np.float64)
        for k, centre in enumerate(centres):
            along = centre @ embeddings[image]
            cosines[image, k] = along / np.linalg.norm(centre) / np.linalg.norm(embeddings[image])
        counts[label, cosines[image].argmax()] += 1
    return counts, cosines


def test_a_checkpoint_says_how_many_centres(home):
    manifest, rows = stored(home / "run")
    assert manifest.sub_centres == NUMBER and rows["weight"].shape == (CLASSES, NUMBER * SIZE)
    raw = json.loads((Path(checkpoint.resolve(str(home / "run"))) / "manifest.json").read_text())
    assert raw["sub_centres"] == NUMBER


def test_the_merge_keeps_the_centre_of_most_images(home, merged):
    (before, rows), (after, kept) = stored(home / "run"), stored(merged)
    counts, cosines = nearest_by_loops(home, rows["weight"])
    chosen = counts.argmax(1)
    assert len(set(chosen)) > 1 and counts.sum() == 8 * CLASSES
    assert after.sub_centres == 1 and after.config["classifier"]["sub_centres"] == 1
    assert sorted(kept) == sorted(rows)
    for name in ("weight", "velocity"):  # to the bit, up to date and as stored
        for old, new in ((rows, kept), (stored(home / "run", True)[1], stored(merged, True)[1])):
            np.testing.assert_array_equal(new[name], old[name].reshape(CLASSES, NUMBER, SIZE)[range(CLASSES), chosen])
    replicated = [checkpoint.read_replicated(checkpoint.resolve(str(run)), manifest)
                  for run, manifest in ((home / "run", before), (merged, after))]  # fmt: skip
    assert replicated[0].keys() == replicated[1].keys()
    assert all(np.array_equal(replicated[1][name], value) for name, value in replicated[0].items())
    elsewhere = int(counts.sum() - counts.max(1).sum())
    assert elsewhere > 0
    said = (home / "said.txt").read_text()
    assert f"of {8 * CLASSES} images {elsewhere} are nearest to a centre that was not kept" in said
    assert f"{int((cosines[range(len(cosines)), chosen.repeat(8)] < FAR).sum())} are more than 75 degrees" in said


def test_training_goes_on_with_the_merged_centres(home, merged):
    plain = {"classifier": {**THREE["classifier"], "sub_centres": 1}}
    Entry(config=settings(home, "after", checkpoint_dir=str(merged), train_steps=14, **plain)).train()
    manifest, rows = stored(home / "after")
    assert manifest.step == 14 and rows["weight"].shape == (CLASSES, SIZE)


def test_what_has_one_centre_is_not_merged(home, merged):
    with pytest.raises(CheckpointError, match="has one centre of each class; there is nothing to merge"):
        Entry(config=settings(home, "again", checkpoint_dir=str(merged))).merge_centres()
    with pytest.raises(CheckpointError, match="holds the checkpoint that is read"):
        Entry(config=settings(home, "run", checkpoint_dir=str(home / "run"))).merge_centres()
    with pytest.raises(CheckpointError, match="step_.*: exists already; remove it, or choose another directory"):
        Entry(config=settings(home, "merged", checkpoint_dir=str(home / "run"))).merge_centres()


@pytest.mark.parametrize("start", [{"checkpoint_dir": "run"}, {"init_from": "classes", "init_checkpoint": "run"}])
def test_another_number_of_centres_is_refused_by_name(home, start):
    start = {key: str(home / value) if value == "run" else value for key, value in start.items()}
    two = {"classifier": {**THREE["classifier"], "sub_centres": 2}}
    with pytest.raises(CheckpointError, match=r"sub_centres is 3 in the checkpoint and 2 in this run; set classifier\."
                       r"sub_centres: 3.*plsc merge-centres"):  # fmt: skip
        Entry(config=settings(home, "refused", **start, **two)).train()


def test_dot_products_have_one_centre():
    with pytest.raises(ConfigError, match=r"classifier.sub_centres=3: the nearest centre.*set it to 1"):
        entry = Entry(config={"classifier": {"sub_centres": 3, "loss_type": "softmax"}})
        entry._config.check(1)


def test_centres_that_begin_equal_are_refused(home):
    import paddle

    entry = Entry(config=settings(home, "equal"))
    entry.set_distfc_attr(paddle.ParamAttr(initializer=paddle.nn.initializer.Constant(0.1)))
    with pytest.raises(ConfigError, match=r"classifier\.sub_centres=3: the initializer Constant .* never part"):
        entry.train()


def test_scores_are_those_of_the_nearest_centre(home):
    export = {"with_classifier": True, "fuse_flip": False}
    entry = Entry(config=settings(home, "out", checkpoint_dir=str(home / "run"), export=export))
    predictor = Predictor(entry.convert_for_prediction())
    images = np.random.default_rng(1).uniform(-1, 1, (5, 3, SIDE, SIDE)).astype(np.float32)
    embedding, scores = predictor.run(images)
    assert predictor.description.num_classes == CLASSES and scores.shape == (5, CLASSES)
    centres = kit.unit(stored(home / "run")[1]["weight"].reshape(-1, SIZE).astype(np.float64))
    expected = 16 * (kit.unit(embedding.astype(np.float64)) @ centres.T).reshape(5, CLASSES, NUMBER).max(2)
    kit.assert_close(scores, expected)
    assert len(predictor.class_names) == CLASSES


def test_clean_compares_with_the_centre_of_most_images(home):
    found = Entry(config=settings(home, "cleaned", checkpoint_dir=str(home / "run"))).clean()
    assert any("of the 3 centres of a class" in line for line in found.table().splitlines())


def test_new_classes_begin_with_their_first_centre_at_the_mean(home):
    start = {"init_from": "classes", "init_checkpoint": str(home / "run"), "new_classes": "mean", "train_steps": 1}
    (home / "map.tsv").write_text("".join(f"{label}\t{label}\n" for label in range(CLASSES - 1)))  # the last is new
    start["label_map"] = str(home / "map.tsv")
    still = {"lr": 1e-12, "weight_decay": 0.0}
    Entry(config=settings(home, "new", **start, **still)).train()
    old, new = (stored(home / run)[1]["weight"].reshape(CLASSES, NUMBER, SIZE) for run in ("run", "new"))
    np.testing.assert_allclose(new[:-1], old[:-1], rtol=0, atol=1e-5)
    images = np.load(home / "merged" / "clean" / "features.npy")[-8:].astype(np.float64)  # of the same backbone
    mean = kit.unit(kit.unit(images).mean(0, keepdims=True))[0]
    length = np.linalg.norm(old[:-1].astype(np.float64), axis=2).mean()
    np.testing.assert_allclose(new[-1, 0], length * mean, rtol=0, atol=2e-3 * length)
    others = kit.unit(new[-1, 1:].astype(np.float64)) @ mean
    assert np.abs(others).max() < 0.9  # they stay as drawn


def test_use_by_hand():
    """Two classes of two centres; equal counts choose the first, and no image the first as well."""
    rows = np.array([[1, 0, 0, 1], [0, 2, 3, 0], [1, 0, 0, 1]], np.float32)
    embeddings = np.array([[0.1, 5], [0.2, 3], [9, 1], [1, 0], [0, 1]], np.float32)
    use = CentreUse(embeddings, np.array([0, 0, 0, 1, 1]), 2)
    assert use.counts(0, rows).tolist() == [[1, 2], [1, 1], [0, 0]]
    assert use.counts(1, rows[1:2]).tolist() == [[1, 1]]
    chosen = dominant(use.counts(0, rows))
    assert chosen.tolist() == [1, 0, 0] and keep(rows, chosen, 2).tolist() == [[0, 1], [0, 2], [1, 0]]
    np.testing.assert_allclose(use.cosines(0, rows[:1], chosen[:1])[2], 1 / np.sqrt(82), rtol=1e-6)
