"""Fine-tuning on other identities: which class centres come over, where new ones begin, what is said about it."""

from __future__ import annotations

import numpy as np
import pytest

from plsc import checkpoint
from tests.dist import ranks
from tests.dist.finetune_cases import NEW, OLD, STILL, write_folders


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the folders ``old`` and ``new``, and a run on the first of them."""
    root = tmp_path_factory.mktemp("finetuning")
    write_folders(root / "data" / "old", OLD)
    write_folders(root / "data" / "new", NEW)
    train(root, "before", "old", 1, {"train_steps": 4, "with_test": False})
    return root


def train(root, name, data, world_size, changes):
    payload = {"run_dir": str(root / name), "data": str(root / "data" / data), "changes": changes}
    return ranks.run("tests.dist.finetune_cases:trained_on", world_size, root, payload)


def centres(run_dir):
    """(names, class weights [C, E]) of the newest checkpoint."""
    path = checkpoint.resolve(str(run_dir))
    manifest = checkpoint.read_manifest(path)
    blocks = checkpoint.read_rows(path, manifest, 0, manifest.num_classes, checkpoint.ReadOptions(["weight"]))
    return checkpoint.read_class_names(path, manifest), np.concatenate([block for _, _, block in blocks])


def log_of(run_dir):
    return (run_dir / "logs" / "rank_00000.log").read_text()


def tuned(root, **changes):
    return {**STILL, "init_from": "classes", "init_checkpoint": str(root / "before"), **changes}


def test_classes_of_the_same_name_come_over(place):
    train(place, "named", "new", 2, tuned(place))
    (old_names, old), (names, new) = centres(place / "before"), centres(place / "named")
    assert old_names == sorted(OLD) and names == sorted(NEW)
    for label, name in enumerate(names):
        assert (name in OLD) == any((new[label] == row).all() for row in old)
        if name in OLD:
            np.testing.assert_array_equal(new[label], old[old_names.index(name)])
    start = place / "before" / "checkpoints" / "step_00000004"
    assert (
        f"start with the backbone and 3 classes of {start}, step 4, matched by name; 4 classes of this run are new, 2 "
        "of the checkpoint were left behind"
    ) in log_of(place / "named")


def embeddings(place, run):
    """(unit vectors float64 [n, E], names of their classes [n]) of all images of the new folder, by an exported model
    of the run."""
    images = sorted((place / "data" / "new").glob("*/*"))
    payload = {"run_dir": str(place / f"exported {run}"), "run": str(place / run), "images": list(map(str, images))}
    (found,) = ranks.run("tests.dist.finetune_cases:embedded", 1, place, payload)
    unit = found.astype(np.float64) / np.linalg.norm(found, axis=1, keepdims=True)
    return unit, np.array([path.parent.name for path in images])


@pytest.fixture(scope="module")
def mean_embeddings(place):
    """{class: float64 [E]}: the mean direction of its images, by an exported model of the first run."""
    unit, names = embeddings(place, "before")
    sums = {name: unit[names == name].sum(axis=0) for name in NEW}
    return {name: total / np.linalg.norm(total) for name, total in sums.items()}


@pytest.mark.parametrize("world_size, loss, workers", [(1, "arcface", 1), (3, "arcface", 0), (2, "softmax", 1)])
def test_new_classes_begin_at_the_mean_of_their_images(place, mean_embeddings, world_size, loss, workers):
    before, changes = place / "before", {"data__num_workers": workers}
    if loss == "softmax":  # rows with a bias
        before, changes["classifier__loss_type"] = place / "softmax", loss
        train(place, "softmax", "old", 1, {"train_steps": 4, "with_test": False, "classifier__loss_type": loss})
    name = f"means{world_size}"
    options = {"init_from": "classes", "init_checkpoint": str(before), "new_classes": "mean", "test_batch_size": 4}
    train(place, name, "new", world_size, {**STILL, **options, **changes})
    (old_names, old), (names, new) = centres(before), centres(place / name)
    kept = [name for name in names if name in OLD]
    length = np.mean([np.linalg.norm(old[old_names.index(name)][:8]) for name in kept])
    for label, name in enumerate(names):
        if name in OLD:
            np.testing.assert_array_equal(new[label], old[old_names.index(name)])
        elif loss == "arcface":
            # a float32 network by other kernels and in other batches
            np.testing.assert_allclose(new[label], length * mean_embeddings[name], rtol=0, atol=2e-6 * length)
        else:
            assert np.linalg.norm(new[label][:8]) == pytest.approx(length, rel=1e-6)
            assert new[label][8] == pytest.approx(np.mean([old[old_names.index(one)][8] for one in kept]), abs=1e-6)
    number = sum(3 + look % 4 for name, look in NEW.items() if name not in OLD)
    log = log_of(place / f"means{world_size}")
    assert f"new_classes: 4 classes begin at the mean embedding of their images, {number} in all" in log


def test_means_of_all_classes_behind_the_backbone_alone(place, mean_embeddings):
    """The list has a class of which there is no image; all rows are new, so the random ones give the length."""
    train(place, "random", "new", 1, {**STILL, "classifier__num_classes": 9})
    options = {"init_from": "backbone", "init_checkpoint": str(place / "before"), "new_classes": "mean"}
    train(place, "backbone", "new", 2, {**STILL, **options, "classifier__num_classes": 9, "test_batch_size": 4})
    (names, new), (_, random) = centres(place / "backbone"), centres(place / "random")
    length = np.linalg.norm(random, axis=1).mean()
    for label, name in enumerate(names):
        np.testing.assert_allclose(new[label], length * mean_embeddings[name], rtol=0, atol=2e-6 * length)
    np.testing.assert_array_equal(new[7:], random[7:])
    assert "new_classes: 2 new classes without images begin at random centres" in log_of(place / "backbone")


def right(place, run, initial):
    """How many images of old classes are nearest to their own centre of all: features of ``run``, centres of
    ``initial``."""
    (unit, of_class), (names, rows) = embeddings(place, run), centres(place / initial)
    cosine = unit @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    old = np.isin(of_class, list(OLD))
    return int((np.array(names)[cosine.argmax(axis=1)] == of_class)[old].sum()), int(old.sum())


def test_what_was_forgotten_is_told_in_log_and_result(place):
    options = tuned(place, train_steps=9, lr=3.0, test_batch_size=4, resume="auto")
    train(place, "still", "new", 1, tuned(place))
    train(place, "forgets", "new", 2, {**options, "train_steps": 4})
    results = train(place, "forgets", "new", 2, options)  # goes on: what was before is in its checkpoint
    (before, number), (after, _) = right(place, "before", "still"), right(place, "forgets", "forgets")
    assert number == 12 and before != after
    told = f"{number} images of classes that came over, nearest to their own centre: {before / number:.2%} before"
    told += " training"
    assert all(f"{told}, {after / number:.2%} after it" in text for text in results)
    log = log_of(place / "forgets")
    assert log.count(f"old classes: {told}\n") == 1 and f"old classes: {told}, {after / number:.2%}" in log
