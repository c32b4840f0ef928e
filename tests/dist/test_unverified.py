"""A verification that fails costs no training: saved first, said, gone on with, and told at the end, on every rank."""

from __future__ import annotations

import json
import os

import pytest

from plsc.checkpoint import OneRank, latest, open_checkpoint
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import manifest, told


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("unverified")
    return cwd, run_process("tests.dist.unverified", cwd)


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_goes_on_and_the_end_tells(outcome, ranks):
    cwd, report = outcome
    assert report[f"good{ranks}"] == [0] * ranks and report[f"breaks{ranks}"] == [3] * ranks
    run = cwd / f"breaks{ranks}"
    where = "rank 1: " if ranks == 2 else ""
    for rank in range(ranks):
        about = json.loads((run / f"error{rank}.json").read_text())
        assert about["steps"] == [8, 12] and about["step"] == 12
        assert f"trained and saved ({about['path']}), but verification failed at 2 step(s): 8, 12" in about["text"]
        assert f"at step 8: {where}test_dataset[21] raised OSError: the disk has gone" in about["text"]
        log = (run / "logs" / f"rank_{rank:05d}.log").read_text()
        assert "verification failed at step 8, training continues: " in log
    # what was trained and saved is that of the run whose verifications were good
    assert manifest(run, 12)["files"] == manifest(cwd / f"good{ranks}", 12)["files"]
    assert about["path"] == latest(str(run))
    assert {key[0] for key in told(run) if key[1] != "train"} == {4}


def test_the_checkpoint_is_there_before_its_verification(outcome):
    cwd, report = outcome
    assert report["dies1"] == [9]
    path, found = open_checkpoint(str(cwd / "dies1"), OneRank())
    assert found.step == 12
    assert found.files.keys() == manifest(cwd / "good1", 12)["files"].keys()


def test_a_picture_that_is_cut_off_is_found_before_the_first_step(outcome):
    """Picture 21 belongs to rank 1; both ranks end, and say which."""
    cwd, report = outcome
    assert report["cut_off2"] == [3, 3]
    for rank in (0, 1):
        text = json.loads((cwd / "cut_off2" / f"error{rank}.json").read_text())
        assert "image 21: cannot be decoded" in text and "val_targets" in text
    assert not (cwd / "cut_off2" / "run" / "checkpoints").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_best_checkpoint_has_the_files_of_the_one_that_was_saved(outcome, ranks):
    """Verified and saved at 4, 8, 12: links to what was saved."""
    cwd, _ = outcome
    run = cwd / f"good{ranks}"
    path, found = open_checkpoint(str(run / "best"), OneRank())
    areas = {key[0]: values[0] for key, values in told(run).items() if key[2] == "auc"}
    best = max(areas, key=lambda step: (areas[step], -step))
    assert found.step == best
    assert found.extra["best"] == {"metric": "test_dataset.auc", "value": areas[best], "step": best}
    for name in found.files:
        assert os.path.samefile(os.path.join(path, name), run / "checkpoints" / f"step_{best:08d}" / name)
