"""A checkpoint kept in a second place: the same files, another `extra`, and all or nothing."""

from __future__ import annotations

import os
import shutil

import pytest

from plsc.checkpoint import OneRank, latest, link, newest_intact, open_checkpoint, resolve, restore_newest
from plsc.errors import CheckpointError
from tests.checkpoint.checkpoint_kit import save_as


def test_it_is_the_same_but_for_what_it_says_of_itself(tmp_path):
    path = save_as(tmp_path / "run", 12, 11, 2)
    copy = link(path, str(tmp_path / "run" / "best"), {"best": 1}, OneRank())
    found, manifest = open_checkpoint(copy, OneRank())  # every hash
    stored = open_checkpoint(path, OneRank())[1]
    assert manifest.extra == {"best": 1} and stored.extra != manifest.extra
    assert manifest.files == stored.files and manifest.step == 12
    assert all(os.path.samefile(os.path.join(path, name), os.path.join(found, name)) for name in stored.files)


def test_without_links_the_files_are_copied(tmp_path, monkeypatch):
    path = save_as(tmp_path / "run", 12, 11, 2)

    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    copy = link(path, str(tmp_path / "best"), {}, OneRank())
    assert open_checkpoint(copy, OneRank())[1].files == open_checkpoint(path, OneRank())[1].files


def test_one_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    best = str(tmp_path / "best")
    first = link(save_as(tmp_path / "run", 12, 11, 2), best, {}, OneRank())
    path = save_as(tmp_path / "run", 13, 11, 2)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plsc.checkpoint.links.write_manifest", full)
    with pytest.raises(CheckpointError, match="cannot keep .*step_00000013 in .*No space left"):
        link(path, best, {}, OneRank())
    assert os.listdir(tmp_path / "best" / "checkpoints") == ["step_00000012"]
    open_checkpoint(first, OneRank())


@pytest.mark.parametrize("in_its_place", ["nothing", "cut off", "flipped"])
def test_the_one_a_run_goes_on_from_is_in_its_place_and_can_be_kept_elsewhere(tmp_path, in_its_place):
    """A save of the same step was killed between its two renames, or what it put there is damaged."""
    run_dir = str(tmp_path / "run")
    path = save_as(tmp_path / "run", 12, 11, 2)
    aside = os.path.join(os.path.dirname(path), ".replaced_step_00000012")
    shutil.copytree(path, aside)
    if in_its_place == "nothing":
        shutil.rmtree(path)
    else:
        with open(os.path.join(path, "replicated.safetensors"), "r+b") as file:
            file.seek(-1, os.SEEK_END)
            if in_its_place == "cut off":
                file.truncate()
            else:
                last = file.read(1)[0]
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last ^ 1]))
    before = sorted(os.listdir(tmp_path / "run" / "checkpoints"))
    latest(run_dir)
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == before  # who only reads moves nothing
    found = newest_intact(run_dir, OneRank())
    assert found == path
    for target in (run_dir, str(tmp_path / "best")):
        assert open_checkpoint(link(found, target, {"best": 1}, OneRank()), OneRank())[1].step == 12
    damaged = [] if in_its_place == "nothing" else ["damaged_step_00000012"]
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == [*damaged, "step_00000012"]


def test_a_run_that_goes_on_in_its_own_directory_does_so_from_the_name_that_stays(tmp_path):
    """By checkpoint_dir, without resume: auto; a save of the same step was killed between its two renames."""
    run_dir, path = str(tmp_path / "run"), save_as(tmp_path / "run", 12, 11, 2)
    os.rename(path, os.path.join(os.path.dirname(path), ".replaced_step_00000012"))
    assert ".replaced_" in resolve(run_dir)  # who only reads moves nothing
    for _ in range(2):
        restore_newest(run_dir, OneRank())
        assert open_checkpoint(run_dir, OneRank())[0] == path
    restore_newest(str(tmp_path / "nothing"), OneRank())
