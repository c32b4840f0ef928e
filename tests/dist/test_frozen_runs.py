"""Runs with frozen stages, on several ranks: what is frozen stays to the bit, also through a resumption."""

from __future__ import annotations

import numpy as np
import pytest

from plsc import checkpoint
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import CLASSES, told


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("frozen")
    return cwd, run_process("tests.dist.frozen_cases", cwd)


def stored(run_dir):
    """All tensors of the newest checkpoint by name; those of classes begin with "classes."."""
    path = checkpoint.resolve(str(run_dir))
    manifest = checkpoint.read_manifest(path)
    found = checkpoint.read_replicated(path, manifest)
    for name, _, rows in checkpoint.read_rows(path, manifest, 0, CLASSES):
        before = [found[f"classes.{name}"]] if f"classes.{name}" in found else []
        found[f"classes.{name}"] = np.concatenate([*before, rows])
    return found


def of_stem(name):
    return name.startswith(("backbone.backbone.conv2d_0", "backbone.backbone.batch_norm2d_0"))


def test_a_frozen_stage_stays_as_it_was_and_has_no_momentum(outcome):
    cwd, report = outcome
    assert set(report["straight"]) == {0}
    old, new = stored(cwd / "old"), stored(cwd / "straight")
    stem = [name for name in old if of_stem(name)]
    assert len(stem) == 6 and any((old[name] != 0).all() and name.endswith("_1") for name in stem)
    for name in stem:
        np.testing.assert_array_equal(new[name], old[name])
    rest = [name for name in new if name.startswith("backbone.") and name not in stem]
    assert rest and all((new[name] != old[name]).any() for name in rest)
    velocities = {name for name in new if name.startswith("velocity.")}
    assert velocities == {f"velocity.{name}" for name in rest}


def test_a_resumed_run_ends_as_one_that_was_not(outcome):
    cwd, report = outcome
    assert set(report["first half"] + report["second half"]) == {0}
    straight, halves = stored(cwd / "straight"), stored(cwd / "halves")
    assert straight.keys() == halves.keys()
    for name, array in straight.items():
        np.testing.assert_array_equal(halves[name], array, err_msg=name)


def test_other_frozen_stages_are_refused_when_a_run_goes_on(outcome):
    cwd, report = outcome
    assert report["other"] == [1, 1]
    said = (cwd / "rank1.log").read_text()
    assert "was trained with model.freeze=['stem'], this run has []; set it as it was, or begin a new run" in said


def test_without_backbone_any_number_of_ranks_trains_the_same(outcome):
    cwd, report = outcome
    assert report["all1"] == [0] and report["all2"] == [0, 0]
    old, one, two = (stored(cwd / name) for name in ("old", "all1", "all2"))
    for name, array in one.items():
        if name.startswith("backbone."):
            np.testing.assert_array_equal(array, old[name])
            np.testing.assert_array_equal(two[name], old[name])
    # sums over ranks in another order, three steps
    np.testing.assert_allclose(two["classes.weight"], one["classes.weight"], rtol=0, atol=1e-6)
    assert np.abs(one["classes.weight"] - two["classes.velocity"]).max() > 1e-3
    losses = [[told(cwd / f"all{ranks}")[step, "train", "loss"] for step in (1, 2, 3)] for ranks in (1, 2)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)


def test_it_is_said_what_is_frozen(outcome):
    cwd, _ = outcome
    for name, rest in (("straight", "521"), ("all1", "0")):
        log = (cwd / name / "logs" / "rank_00000.log").read_text()
        frozen = "stem" if name == "straight" else "all"
        assert f"model.freeze: {frozen}: not trained;" in log
        assert f"; {rest} parameters of the backbone are trained" in log
