"""Copies that are broken off, damaged or shared between machines. The store is a directory."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from plsc.checkpoint import SHARED, layout, newest, read_manifest, remove_old
from plsc.config import Config
from plsc.errors import CheckpointError, ConfigError
from plsc.remote import (
    fetch_checkpoint,
    fetch_initial_checkpoint,
    newest_copy,
    publish,
    publish_checkpoints,
    publish_save,
    transfer,
    warn_of_newer_copies,
)
from tests.checkpoint.checkpoint_kit import save_as
from tests.checkpoint.places_kit import places_of, save_in, values
from tests.remote.remote_kit import FakeRun, install_hadoop, on_runs, raise_first, tree


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_DELAYS", (0.0, 0.0))


@pytest.fixture
def remote(tmp_path):
    """The directory that is the store."""
    return tmp_path / "remote"


def to(remote):
    return {"remote": {"save_url": f"file://{remote}"}}


def test_each_machine_copies_once(remote, tmp_path, monkeypatch):
    local = save_as(tmp_path / "run", 4, 7, 2)
    publish(FakeRun(tmp_path / "run", to(remote)), local)
    copied, copy = [], transfer.download

    def counted(store, name, path, expected):
        copied.append(os.path.relpath(path, tmp_path).split(os.sep)[0] + " " + os.path.basename(name))
        copy(store, name, path, expected)

    monkeypatch.setattr("plsc.remote.source.download", counted)
    machines = [0, 0, 1, 1]
    for disks in (["disk0", "disk0", "disk1", "disk1"], ["shared"] * 4):  # a disk of each machine's own, or one for all
        copied.clear()
        directories = [tmp_path / disk for disk in disks]
        paths = raise_first(on_runs(directories, {}, lambda run: fetch_checkpoint(run, f"file://{remote}"), machines))
        assert [os.path.dirname(os.path.dirname(path)) for path in paths] == list(map(str, directories))
        assert all(tree(path) == tree(local) for path in paths)
        tensors = [name for name in tree(local) if name.endswith(".safetensors")]
        assert sorted(copied) == sorted(f"{disk} {name}" for disk in set(disks) for name in tensors)


@pytest.mark.parametrize("broken_at", range(3))
def test_an_upload_that_is_broken_off_never_looks_complete(remote, tmp_path, monkeypatch, broken_at):
    first = save_as(tmp_path / "run", 2, 7, 2)
    publish(FakeRun(tmp_path / "run", to(remote)), first)
    local = save_as(tmp_path / "run", 4, 7, 2)
    publish(FakeRun(tmp_path / "run", to(remote)), local)  # an older one of the same step, which is replaced below
    local = save_as(tmp_path / "run", 4, 7, 2, salt=3)
    put, done = transfer.upload, []

    def breaks(*arguments):
        if len(done) == broken_at:
            raise KeyboardInterrupt
        done.append(put(*arguments))

    monkeypatch.setattr("plsc.remote.publishing.upload", breaks)
    with pytest.raises(KeyboardInterrupt):
        publish(FakeRun(tmp_path / "run", to(remote)), local)
    assert layout.MANIFEST not in tree(remote / "checkpoints/step_00000004")
    assert tree(fetch_checkpoint(FakeRun(tmp_path / "other"), f"file://{remote}")) == tree(first)
    monkeypatch.undo()


DAMAGES = [
    ("shard_00001_of_00002.safetensors", lambda data: data[:-1] + b"X", "the SHA-256 of the received data differs"),
    ("shard_00001_of_00002.safetensors", lambda data: data[:-1], "bytes, expected .*: incomplete"),
    ("replicated.safetensors", lambda data: None, "missing, expected .* bytes: incomplete"),
    ("manifest.json", lambda data: data.replace(b'"step": 4', b'"step": 5'), "its SHA-256 is not the one in"),
    ("manifest.json", lambda data: b"[", "damaged, not JSON"),
    ("manifest.sha256", lambda data: None, "manifest.sha256"),
    ("manifest.json", lambda data: None, "found no checkpoint"),
]


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGES)
@pytest.mark.parametrize("world_size", [1, 2])
def test_damage_is_named_on_every_rank_and_leaves_nothing(remote, tmp_path, name, damage, reason, world_size):
    publish(FakeRun(tmp_path / "run", to(remote)), save_as(tmp_path / "run", 4, 7, 2))
    path = remote / "checkpoints/step_00000004" / name
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    work = lambda run: fetch_checkpoint(run, f"file://{remote}")  # noqa: E731
    for error in on_runs([tmp_path / "other"] * world_size, {}, work):
        assert isinstance(error, CheckpointError), error
        assert re.match(f"cannot fetch checkpoint file://{remote}: .*{reason}", str(error))
        assert "\n" not in str(error) and "plsc_" not in str(error)  # not the place where the manifest was looked at
    assert not (tmp_path / "other").exists() or os.listdir(tmp_path / "other" / "fetched") == []


def export_of(tmp_path, remote):
    export = tmp_path / "run" / "inference"
    (export / "deep").mkdir(parents=True)
    (export / "net").write_bytes(b"weights")
    (export / "deep" / "facts.json").write_bytes(b"{}")
    publish(FakeRun(tmp_path / "run", to(remote)), str(export))
    return export, remote / "inference"


def test_an_export_there_and_back(remote, tmp_path):
    export, there = export_of(tmp_path, remote)
    fetch = lambda run: fetch_checkpoint(run, f"file://{there}")  # noqa: E731
    copy, other = raise_first(on_runs([tmp_path / "other"] * 2, {}, fetch))
    assert copy == other and tree(copy) == tree(there) and tree(copy).keys() - tree(export).keys() == {"upload.json"}
    assert fetch(FakeRun(tmp_path / "other")) == copy


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/../../../outside", "upload.json", ""])
def test_a_list_that_points_outside_is_refused(remote, tmp_path, name):
    _, there = export_of(tmp_path, remote)
    text = (there / "upload.json").read_text().replace('"net"', json.dumps(name))
    (there / "upload.json").write_text(text)
    with pytest.raises(CheckpointError, match="upload.json: damaged, or not written by this PLSC"):
        fetch_checkpoint(FakeRun(tmp_path / "other"), f"file://{there}")


def test_what_a_killed_start_left_goes_and_what_is_damaged_here_is_named(remote, tmp_path):
    local = save_as(tmp_path / "run", 4, 7, 2)
    publish(FakeRun(tmp_path / "run", to(remote)), local)
    copy = fetch_checkpoint(FakeRun(tmp_path / "other"), f"file://{remote}")
    os.rename(copy, copy + ".part_0123")
    assert fetch_checkpoint(FakeRun(tmp_path / "other"), f"file://{remote}") == copy
    assert os.listdir(os.path.dirname(copy)) == [os.path.basename(copy)] and tree(copy) == tree(local)
    with open(os.path.join(copy, "replicated.safetensors"), "r+b") as file:
        file.seek(-1, 2)
        file.write(b"X")
    with pytest.raises(CheckpointError, match=f"SHA-256 differs; remove {copy} to copy it again"):
        fetch_checkpoint(FakeRun(tmp_path / "other"), f"file://{remote}")


def test_the_place_of_plsc_0_x(remote, tmp_path, monkeypatch):
    """fs_checkpoint_dir is copied to checkpoint_dir; where that is not set, below model_save_dir."""
    disk, _ = install_hadoop(monkeypatch, tmp_path)
    local = save_as(tmp_path / "run", 4, 7, 2)
    shutil.copytree(local, disk / "name" / "load")
    hdfs = {"fs_name": "hdfs://name", "fs_checkpoint_dir": "/load"}
    run = FakeRun(tmp_path / "other", {"checkpoint_dir": str(tmp_path / "copy"), "remote": hdfs})
    assert fetch_initial_checkpoint(run, None) == str(tmp_path / "copy") and tree(tmp_path / "copy") == tree(
        local
    )
    run = FakeRun(tmp_path / "other", {"remote": hdfs})
    found = fetch_initial_checkpoint(run, None)
    assert found.startswith(str(tmp_path / "other" / "fetched")) and tree(found) == tree(local)
    assert run.config.checkpoint_dir == ""  # what the user has set stays


def test_every_complete_checkpoint_of_the_run_is_copied_and_no_other(remote, tmp_path):
    run_dir = tmp_path / "run [1]"
    newest, best = save_as(run_dir, 8, 7, 2), save_as(run_dir, 4, 7, 2)
    for name in ("best", "fetched/step_1_abc", "best_of/step_00000004", "logs", "checkpoints/damaged_step_00000002"):
        shutil.copytree(best, run_dir / name)
    os.unlink(run_dir / "logs" / "replicated.safetensors")
    publish_checkpoints(FakeRun(run_dir, to(remote)))
    found = {str(path.parent.relative_to(remote)) for path in remote.rglob(layout.MANIFEST)}
    assert found == {"best", "best_of/step_00000004", "checkpoints/step_00000004", "checkpoints/step_00000008"}
    assert tree(remote / "checkpoints/step_00000008") == tree(newest)


def test_an_older_complete_checkpoint_comes_before_a_newer_half_one(remote, tmp_path, caplog):
    local = [save_as(tmp_path / "run", step, 7, 2) for step in (4, 100_000_000)]
    publish_checkpoints(FakeRun(tmp_path / "run", to(remote)))
    (remote / "checkpoints/step_100000000/replicated.safetensors").unlink()
    assert tree(fetch_checkpoint(FakeRun(tmp_path / "other"), f"file://{remote}")) == tree(local[0])
    assert "step_100000000/replicated.safetensors: missing" in caplog.text


def test_a_directory_that_holds_something_else_is_left_alone(remote, tmp_path):
    copy = tmp_path / "copy"
    publish(FakeRun(tmp_path / "run", to(remote)), save_as(tmp_path / "run", 4, 7, 2))
    copy.mkdir()
    (copy / "mine.txt").write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=f"{copy} has other contents"):
        fetch_checkpoint(FakeRun(tmp_path / "other", {"checkpoint_dir": str(copy)}), f"file://{remote}")
    assert tree(copy) == {"mine.txt": b"precious"}


def test_resume_auto_takes_what_is_here_first(remote, tmp_path):
    publish(FakeRun(tmp_path / "run", to(remote)), save_as(tmp_path / "run", 4, 7, 2))
    run = FakeRun(tmp_path / "run", {"checkpoint_dir": f"file://{remote}", "resume": "auto"})
    own = newest(str(tmp_path / "run"), run.group, SHARED)
    assert fetch_initial_checkpoint(run, own) == "" and not (tmp_path / "run" / "fetched").exists()
    assert "fetched" in fetch_initial_checkpoint(run, None)
    assert run.config.checkpoint_dir == f"file://{remote}"  # as the user set it, and as a checkpoint will say


def test_what_is_on_this_machine_is_not_copied(tmp_path):
    assert fetch_initial_checkpoint(FakeRun(tmp_path), None) == ""
    assert fetch_initial_checkpoint(FakeRun(tmp_path, {"checkpoint_dir": str(tmp_path / "run")}), None) == str(
        tmp_path / "run"
    )


def test_what_lies_on_several_disks_is_one_checkpoint_at_the_address(remote, tmp_path, monkeypatch):
    """Each rank copies what its place has, and what all have is copied once."""
    places = places_of((0, 1), (2, 3), replicas=1)
    directories = [os.path.dirname(os.path.dirname(path)) for path in values(save_in(tmp_path, 4, 11, places))]
    names, copied, copy = [f"n{i}" for i in range(11)], [], transfer.upload

    def counted(store, local, name, entry):
        copied.append((os.path.relpath(local, tmp_path).split(os.sep)[0], name))
        copy(store, local, name, entry)

    monkeypatch.setattr("plsc.remote.publishing.upload", counted)
    raise_first(on_runs(directories, to(remote), publish_checkpoints, places=places))
    assert tree(remote / "checkpoints/step_00000004") == tree(save_as(tmp_path / "one", 4, 11, 4, class_names=names))
    assert len(copied) == 6 and {disk for disk, _ in copied} == {"disk0", "disk1"}

    (remote / "checkpoints/step_00000004/manifest.json").unlink()
    for one in (0, 1):  # both copies
        os.unlink(tmp_path / f"disk{one}/run/checkpoints/step_00000004/shard_00002_of_00004.safetensors")
    found = on_runs(directories, to(remote), lambda run: publish(run, f"{run.config.model_save_dir}/checkpoints/"
                    "step_00000004"), places=places)  # fmt: skip
    assert all("shard_00002_of_00004.safetensors is on the disk of no rank" in str(error) for error in found), found
    assert not (remote / "checkpoints/step_00000004/manifest.json").exists()


def test_each_save_is_copied_and_what_is_deleted_here_is_deleted_there(remote, tmp_path, monkeypatch):
    run_dir, settings = tmp_path / "run", {"remote": {"save_url": f"file://{remote}", "upload": "every_save"}}
    run, removed = FakeRun(run_dir, settings), []
    (remote / "checkpoints/step_00000001").mkdir(parents=True)
    mine = [f"step_00000001/{name}" for name in ("mine.txt", "shard_notes.txt", "shard_1/replicated.safetensors")]
    (remote / "checkpoints/step_00000001/shard_1").mkdir()
    for name in mine:
        (remote / "checkpoints" / name).write_text("precious")
    for step in (1, 2, 3, 4):
        path = save_as(run_dir, step, 7, 2, class_names=["a", "b"])
        removed = remove_old(str(run_dir), 2, run.group)
        if step == 4:
            (remote / "checkpoints/step_00000002/manifest.json").unlink()  # as if that copy had failed
        assert publish_save(run, path, removed)
    there = tree(remote / "checkpoints")
    assert [there.pop(name) for name in mine] == [b"precious"] * 3
    assert {os.path.dirname(name) for name in there} == {"step_00000003", "step_00000004"}
    assert there == {name: data for name, data in tree(run_dir / "checkpoints").items()}

    def broken(*args):
        raise CheckpointError("the network is down")

    monkeypatch.setattr("plsc.remote.publishing.upload", broken)
    assert not publish_save(run, save_as(run_dir, 5, 7, 2), [])
    last = run.log.lines[-1]
    assert "WARNING: cannot copy" in last and "the network is down; the training goes on" in last


@pytest.mark.parametrize("upload, resumes, own, step", [
    ("every_save", True, None, 4), ("every_save", False, None, None), ("every_save", True, "own", None),
    ("end", True, None, None),
])  # fmt: skip
def test_resume_auto_looks_where_every_save_is_copied_to(remote, tmp_path, upload, resumes, own, step):
    publish(FakeRun(tmp_path / "run", to(remote)), save_as(tmp_path / "run", 4, 7, 2))
    settings = {"remote": {"save_url": f"file://{remote}", "upload": upload}}
    found = fetch_initial_checkpoint(FakeRun(tmp_path / "other", settings), own, resumes)
    assert (read_manifest(found).step if found else None) == step
    settings["remote"]["save_url"] = f"file://{tmp_path}/empty"
    assert fetch_initial_checkpoint(FakeRun(tmp_path / "third", settings), own, resumes) == ""
    with pytest.raises(ConfigError, match="remote.upload='every_save': set remote.save_url"):
        Config.from_dict({"remote": {"upload": "every_save"}}).check(1, "cpu")


@pytest.mark.parametrize("settings, step, newest, says", [
    ({}, 3, 4, True), ({}, 4, 4, False), ({"remote.upload": "end"}, 3, None, False),
    ({"checkpoint_dir": "s3://bucket/run"}, 3, None, False),
    ({"remote.fs_name": "hdfs://name", "remote.fs_checkpoint_dir": "/load"}, 3, None, False),  # starts elsewhere
])  # fmt: skip
def test_later_steps_at_the_address_than_those_here_are_said(remote, tmp_path, settings, step, newest, says):
    """Of an earlier start on other disks, which the run would otherwise replace without a word."""
    publish(FakeRun(tmp_path / "run", to(remote)), save_as(tmp_path / "run", 4, 7, 2))
    address = {"remote.save_url": f"file://{remote}", "remote.upload": "every_save"}
    run = FakeRun(tmp_path / "other", {**address, **settings})
    assert newest_copy(run) == newest
    warn_of_newer_copies(run, step)
    assert bool(run.log.lines) == says
    if says:
        (line,) = run.log.lines
        assert line.startswith(f"WARNING: file://{remote} holds step 4, of another run") and "starts at step 3" in line
