"""New runs that begin with the backbone of another, or with some of its classes under other labels."""

from __future__ import annotations

import numpy as np
import pytest

from plsc import checkpoint
from tests.dist.initials import KEPT, NEW_CLASSES
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import CLASSES, EMBEDDING


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("initials")
    return cwd, run_process("tests.dist.initials", cwd)


def stored(run_dir, num_classes):
    """(backbone by name, weight [C, E]) of the newest checkpoint."""
    path = checkpoint.resolve(str(run_dir))
    manifest = checkpoint.read_manifest(path)
    backbone = {name: array for name, array in checkpoint.read_replicated(path, manifest).items()
                if name.startswith("backbone.") and "velocity" not in name}  # fmt: skip
    rows = [
        block
        for _, _, block in checkpoint.read_rows(path, manifest, 0, num_classes, checkpoint.ReadOptions(["weight"]))
    ]
    return backbone, np.concatenate(rows)


@pytest.mark.parametrize("name", ["backbone", "classes1", "classes2", "classes3"])
def test_the_backbone_is_the_old_one(outcome, name):
    cwd, report = outcome
    assert set(report[name]) == {0}
    old, new, fresh = (stored(cwd / run, size)[0] for run, size in
                       (("old", CLASSES), (name, NEW_CLASSES), ("fresh", NEW_CLASSES)))  # fmt: skip
    moved = [key for key in new if "mean" in key or "variance" in key or key.endswith(("_1", "_2"))]
    assert new.keys() == old.keys() and 0 < len(moved) < len(new)
    for key in new.keys() - set(moved):  # the one step that was made had no learning rate; batch statistics moved
        np.testing.assert_array_equal(new[key], old[key])
    assert any((new[key] != fresh[key]).any() for key in new)


@pytest.mark.parametrize("name", ["classes1", "classes2", "classes3"])
def test_named_classes_keep_their_centres_and_the_rest_is_new(outcome, name):
    cwd, _ = outcome
    old, new, fresh = stored(cwd / "old", CLASSES)[1], stored(cwd / name, NEW_CLASSES)[1], None
    fresh = stored(cwd / "fresh", NEW_CLASSES)[1]
    assert new.shape == (NEW_CLASSES, EMBEDDING)
    expected = fresh.copy()
    for before, now in KEPT.items():
        expected[now] = old[before]
    np.testing.assert_array_equal(new, expected)


def test_without_names_the_same_numbers_keep_their_centres(outcome):
    cwd, report = outcome
    assert report["number"] == [0, 0]
    np.testing.assert_array_equal(stored(cwd / "number", CLASSES)[1], stored(cwd / "old", CLASSES)[1])
    assert (
        "matched by number, as "
        f"{cwd}/old/checkpoints/step_00000008 and the training data has no names of classes; 0 classes of this run are "
        "new, 0 of the checkpoint were left behind"
    ) in (cwd / "number" / "logs" / "rank_00000.log").read_text()


def test_backbone_alone_has_new_classes_only(outcome):
    cwd, _ = outcome
    np.testing.assert_array_equal(stored(cwd / "backbone", NEW_CLASSES)[1], stored(cwd / "fresh", NEW_CLASSES)[1])


@pytest.mark.parametrize("name, message", [
    ("other number", "has 37 classes, the training data 50, and without names on both sides they cannot be matched"),
    ("bad map", "new label 50: must be in [0, 50)"), ("other model", "the checkpoint holds"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(outcome, name, message):
    cwd, report = outcome
    assert report[name] == [1, 1]
    for rank in (0, 1):
        assert message in (cwd / f"rank{rank}.log").read_text()
    assert not (cwd / name / "checkpoints").exists()
