"""Which checkpoint is found, and which may be deleted."""

from __future__ import annotations

import os
import shutil

import pytest

from plsc.checkpoint import OneRank, latest, read_manifest, remove_old, resolve, retention
from plsc.errors import CheckpointError
from tests.checkpoint.checkpoint_kit import save_as


class RankOne(OneRank):
    def __init__(self):
        super().__init__()
        self.rank, self.world_size = 1, 2


def steps(run_dir):
    return [int(name[5:]) for name in sorted(os.listdir(run_dir / "checkpoints")) if name.startswith("step_")]


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    for step in (5, 40, 300, 2000, 123456789):
        save_as(run_dir, step, 5, 1)
    return run_dir


@pytest.fixture
def run_dir(five, tmp_path):
    return shutil.copytree(five, tmp_path / "run")


def of_step(run_dir, step):
    return str(run_dir / "checkpoints" / f"step_{step:08d}")


def damage(run_dir, step):
    os.unlink(os.path.join(of_step(run_dir, step), "shard_00000_of_00001.safetensors"))


def test_the_newest_is_found_by_number(run_dir):
    assert latest(str(run_dir)) == of_step(run_dir, 123456789) == resolve(str(run_dir))
    assert resolve(of_step(run_dir, 40)) == of_step(run_dir, 40)


def test_what_is_not_complete_is_passed_over_and_named(run_dir, caplog):
    damage(run_dir, 123456789)
    os.unlink(os.path.join(of_step(run_dir, 2000), "manifest.json"))
    (run_dir / "checkpoints" / ".tmp_step_999999999").mkdir()
    shutil.copytree(of_step(run_dir, 40), run_dir / "checkpoints" / "step_00099999x")
    shutil.copytree(of_step(run_dir, 40), run_dir / "checkpoints" / ".removed_step_00100000")
    (run_dir / "checkpoints" / "step_00888888").write_text("a file")
    assert latest(str(run_dir)) == of_step(run_dir, 300)
    assert [message.split("step_")[1].split("/")[0] for message in caplog.messages] == ["123456789", "00002000"]


def test_nothing_to_find(tmp_path):
    assert latest(str(tmp_path)) is None
    with pytest.raises(CheckpointError, match="no such directory"):
        resolve(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        resolve(str(tmp_path))
    (tmp_path / "checkpoints" / "step_00000001").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("keep, left", [
    (-1, [5, 40, 300, 2000, 123456789]), (0, [5, 40, 300, 2000, 123456789]), (1, [123456789]),
    (2, [2000, 123456789]), (5, [5, 40, 300, 2000, 123456789]), (9, [5, 40, 300, 2000, 123456789]),
])  # fmt: skip
def test_the_newest_stay(run_dir, keep, left):
    removed = remove_old(str(run_dir), keep, OneRank())
    assert steps(run_dir) == left
    assert sorted(removed) == [of_step(run_dir, s) for s in (5, 40, 300, 2000, 123456789) if s not in left]
    assert len(os.listdir(run_dir / "checkpoints")) == len(left)


def test_only_rank_zero_deletes(run_dir):
    assert remove_old(str(run_dir), 1, RankOne()) == []
    assert len(steps(run_dir)) == 5


def test_one_that_is_not_complete_does_not_count_among_the_kept(run_dir):
    damage(run_dir, 123456789)
    remove_old(str(run_dir), 1, OneRank())
    assert steps(run_dir) == [2000, 123456789]


def test_with_no_complete_one_nothing_is_deleted(run_dir):
    for step in (5, 40, 300, 2000, 123456789):
        damage(run_dir, step)
    assert remove_old(str(run_dir), 1, OneRank()) == []
    assert len(steps(run_dir)) == 5


def test_the_one_given_to_read_stays(run_dir):
    (run_dir.parent / "link").symlink_to(of_step(run_dir, 40))
    remove_old(str(run_dir), 1, OneRank(), protect=[str(run_dir.parent / "link"), of_step(run_dir, 5)])
    assert steps(run_dir) == [5, 40, 123456789]


def test_what_does_not_carry_our_manifest_stays(run_dir):
    os.unlink(os.path.join(of_step(run_dir, 5), "manifest.json"))
    with open(os.path.join(of_step(run_dir, 40), "manifest.json"), "w") as file:
        file.write('{"format": "of somebody else"}')
    outside = shutil.move(of_step(run_dir, 300), run_dir.parent / "outside")
    os.symlink(outside, of_step(run_dir, 300))
    (run_dir / "checkpoints" / "best").mkdir()
    remove_old(str(run_dir), 1, OneRank())
    assert steps(run_dir) == [5, 40, 300, 123456789] and (run_dir / "checkpoints" / "best").is_dir()
    read_manifest(outside)


@pytest.mark.parametrize("survives", range(4))
def test_a_kill_while_deleting_is_never_seen_as_a_checkpoint(run_dir, survives, monkeypatch):
    """The child dies at each of its steps: after the rename, and after each file."""
    child = os.fork()
    if child == 0:
        real, left = os.unlink, [survives]

        def unlink(path):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            real(path)

        monkeypatch.setattr(os, "unlink", unlink)
        try:
            remove_old(str(run_dir), 4, OneRank())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert steps(run_dir) == [40, 300, 2000, 123456789]
    assert ".removed_step_00000005" in os.listdir(run_dir / "checkpoints")
    save_as(run_dir, 123456790, 5, 1)
    assert [name for name in os.listdir(run_dir / "checkpoints") if name.startswith(".")] == []


def test_what_cannot_be_deleted_is_a_warning(run_dir, monkeypatch, caplog):
    def refuse(path, aside):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "replace", refuse)
    assert remove_old(str(run_dir), 4, OneRank()) == []
    assert caplog.messages == [
        f"old checkpoint {of_step(run_dir, 5)} not deleted: Permission denied: {of_step(run_dir, 5)}"
    ]


def test_leftovers_of_others_stay(run_dir):
    root = run_dir / "checkpoints"
    for name in (".tmp_step_00000007", ".removed_step_00000007", ".tmp_other", ".tmp_step_7"):
        (root / name).mkdir()
        (root / name / "notes.txt").write_text("mine")
    (root / ".tmp_step_00000008").mkdir()  # of a save that was killed before it could mark it
    (root / ".tmp_step_00000009").mkdir()
    (root / ".tmp_step_00000009" / "plsc_save_in_progress").write_text("")
    (root / ".tmp_step_00000009" / "shard_00000_of_00001.safetensors").write_text("half")
    retention.clean_up(str(run_dir))
    left = sorted(name for name in os.listdir(root) if name.startswith("."))
    assert left == [".removed_step_00000007", ".tmp_other", ".tmp_step_00000007", ".tmp_step_7"]
    assert len(list(root.rglob("notes.txt"))) == 4


def test_a_replaced_checkpoint_is_never_deleted_for_a_damaged_one(run_dir):
    root = run_dir / "checkpoints"
    shutil.copytree(of_step(run_dir, 40), root / ".replaced_step_00000040")
    damage(run_dir, 40)
    retention.clean_up(str(run_dir))
    assert (root / ".replaced_step_00000040").is_dir()
    shutil.rmtree(of_step(run_dir, 40))
    retention.clean_up(str(run_dir))
    assert not (root / ".replaced_step_00000040").exists() and read_manifest(of_step(run_dir, 40)).step == 40
