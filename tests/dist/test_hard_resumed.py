"""The table of hard negatives is saved and resumed, to the bit, goes along to other ranks, and can be left out."""

from __future__ import annotations

import numpy as np
import pytest

from plsc import checkpoint
from plsc.checkpoint.reshard import reshard
from tests.dist.hard_resumes import HALF, STEPS
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import CLASSES, IMAGES, Pictures, manifest

LOST = "has no hard negatives: they are collected from here on"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("hard_resumes")
    report = run_process("tests.dist.hard_resumes", cwd)
    assert {code for codes in report.values() for code in codes} == {0}
    return cwd


def table(path):
    options = checkpoint.ReadOptions(["nearest"])
    found = checkpoint.read_rows(str(path), checkpoint.read_manifest(str(path)), 0, CLASSES, options)
    return np.concatenate([rows for _, _, rows in found] or [np.zeros((0, 8), np.int32)])


def step_of(run_dir, step):
    return run_dir / "checkpoints" / f"step_{step:08d}"


def log_of(run_dir):
    return (run_dir / "logs" / "rank_00000.log").read_text()


def test_a_resumed_run_ends_to_the_bit(runs):
    straight, resumed = (manifest(runs / name, STEPS) for name in ("straight", "resumed"))
    assert straight["files"] == resumed["files"]
    before, after = (table(step_of(runs / "resumed", step)) for step in (HALF, STEPS))
    assert before.any() and (before != after).any() and before.dtype == np.int32
    assert LOST not in log_of(runs / "resumed")


def test_other_ranks_go_on_with_it(runs):
    """One step more changes the rows of the labels of one batch only."""
    before, after = table(step_of(runs / "resumed", HALF)), table(step_of(runs / "2 to 3", HALF + 1))
    changed = np.flatnonzero((before != after).any(1))
    assert 0 < len(changed) <= 12 and before[np.setdiff1d(np.arange(CLASSES), changed)].any()
    assert set(changed) <= set(Pictures(IMAGES, CLASSES).labels)
    assert LOST not in log_of(runs / "2 to 3")


def test_resharding_keeps_it(runs, tmp_path):
    new = reshard(str(step_of(runs / "straight", STEPS)), str(tmp_path), 3)
    np.testing.assert_array_equal(table(new), table(step_of(runs / "straight", STEPS)))


def test_a_run_without_goes_on_and_one_with_begins_anew(runs):
    assert not len(table(step_of(runs / "left out", STEPS)))
    assert table(step_of(runs / "left out", STEPS + 1)).any()
    said = log_of(runs / "left out")
    assert said.count(LOST) == 1
    assert "was trained with classifier.hard_negative_share=0.6, this run continues with 0.0" in said
