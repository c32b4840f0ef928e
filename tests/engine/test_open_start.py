"""Which checkpoint a training goes on from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from plsc import remote
from plsc.checkpoint import SHARED, OneRank, Place, Places, read_manifest
from plsc.classifiers import ClassifierSpec
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.run.run_dir import _require_same_name
from plsc.engine.run.start import _checked_places, choose_seed
from plsc.engine.training import checkpointing
from plsc.engine.training.changed_settings import log_changed_settings
from plsc.engine.training.checkpointing import open_start_checkpoint
from plsc.errors import CheckpointError, ConfigError, DataError
from plsc.parallel.environment import Environment
from tests.checkpoint.checkpoint_kit import EMBEDDING_SIZE, meta_for, on_ranks, save_as
from tests.checkpoint.places_kit import disk, places_of, save_in, values

TWO_DISKS = places_of((0,), (1,))
SPEC = ClassifierSpec(num_classes=11, embedding_size=EMBEDDING_SIZE)


def run_in(directory, start_dir="", **settings):
    config = Config.from_dict({"model_save_dir": str(directory), **settings})
    objects = UserObjects()
    return SimpleNamespace(
        config=config, user_objects=objects, group=OneRank(), places=SHARED, start_dir=str(start_dir)
    )


def test_its_own_directory_by_checkpoint_dir_after_a_killed_save(tmp_path):
    """Not from the name under which the next save would delete it."""
    path = save_as(tmp_path, 12, 11, 2)
    os.rename(path, os.path.join(os.path.dirname(path), ".replaced_step_00000012"))
    found, manifest = open_start_checkpoint(run_in(tmp_path, tmp_path), SPEC)
    assert (found, manifest.step) == (path, 12) and os.listdir(tmp_path / "checkpoints") == ["step_00000012"]


def test_another_run_is_read_and_left_as_it_is(tmp_path):
    path = save_as(tmp_path / "other", 12, 11, 2)
    aside = os.path.join(os.path.dirname(path), ".replaced_step_00000012")
    os.rename(path, aside)
    assert open_start_checkpoint(run_in(tmp_path / "mine", tmp_path / "other"), SPEC)[0] == aside
    assert os.listdir(tmp_path / "other" / "checkpoints") == [".replaced_step_00000012"]


def test_a_copy_of_what_is_elsewhere_and_what_comes_before_it(tmp_path):
    copy, address = save_as(tmp_path / "copy", 12, 11, 2), {"checkpoint_dir": "s3://bucket/run"}
    assert open_start_checkpoint(run_in(tmp_path / "mine", copy, **address), SPEC)[0] == copy
    own = save_as(tmp_path / "mine", 4, 11, 2)
    assert open_start_checkpoint(run_in(tmp_path / "mine", "", resume="auto", **address), SPEC)[0] == own
    assert open_start_checkpoint(run_in(tmp_path / "empty"), SPEC) is None


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [lambda path: flip(path), lambda path: path.unlink()], ids=["flipped", "gone"])
@pytest.mark.parametrize("upload", ["every_save", "end"])
def test_what_is_damaged_here_is_replaced_by_the_copy_at_the_address(tmp_path, damage, upload):
    address = {"remote.save_url": f"file://{tmp_path}/remote", "remote.upload": upload}
    run = run_in(tmp_path / "run", resume="auto", **address)
    run.env, run.log = Environment(), SimpleNamespace(info=lambda text: None)
    path = save_as(tmp_path / "run", 12, 11, 2)
    remote.publish(run, path)
    damage(Path(path, "replicated.safetensors"))
    if upload == "end":  # nothing was promised
        with pytest.raises(CheckpointError, match="none of its 1 checkpoint"):
            open_start_checkpoint(run, SPEC)
        return
    for _ in range(2):  # also where the first one was killed when it had renamed what is damaged
        found, manifest = open_start_checkpoint(run, SPEC)
        assert "/run/fetched/step_00000012_" in found and manifest.step == 12
        assert os.listdir(tmp_path / "run" / "checkpoints") == ["damaged_step_00000012"]
    own = save_as(tmp_path / "run", 13, 11, 2)
    assert open_start_checkpoint(run, SPEC)[0] == own


def test_places_without_a_machine_do_not_start_over_from_where_the_run_once_began(tmp_path):
    """Only copies of the run's own saves replace a checkpoint that is not whole."""
    values(save_in(tmp_path, 12, 11, TWO_DISKS))
    shutil.rmtree(tmp_path / "disk1")
    hadoop = {"remote.fs_name": "hdfs://name", "remote.fs_checkpoint_dir": "/load"}

    def work(group):
        run = run_in(disk(tmp_path, TWO_DISKS, group.rank), "fetched/step_3", resume="auto", **hadoop)
        run.group, run.places = group, TWO_DISKS
        return open_start_checkpoint(run, SPEC)

    assert all("none of its checkpoint(s) is whole" in str(error) for error in on_ranks(len(TWO_DISKS.hosts), work))


def test_the_seed_is_that_of_where_the_run_starts(tmp_path, monkeypatch):
    from tests.checkpoint import checkpoint_kit

    monkeypatch.setattr(checkpoint_kit, "meta_for", lambda n: meta_for(n, random_states={"seed": 77}))
    path = save_as(tmp_path, 12, 11, 1)
    config = Config.from_dict({"model_save_dir": str(tmp_path / "mine"), "checkpoint_dir": "s3://bucket/run"})
    assert choose_seed(config, path) == 77


def test_classes_that_moved_are_refused_by_their_names(tmp_path):
    """Also where no image that the record remembers has moved."""
    path = save_as(tmp_path, 12, 11, 1, class_names=["ann", "bob", "cy"])
    opened = path, read_manifest(path)
    said: list[str] = []

    def names(found, accept=False):
        config, log = SimpleNamespace(accept_new_labels=accept), SimpleNamespace(info=said.append)
        run = SimpleNamespace(group=SimpleNamespace(agree=lambda work: work()), config=config, log=log)
        return checkpointing.class_names_of(run, SimpleNamespace(class_names=found), opened)

    assert names(["ann", "bob", "cy", "dan"]) == ("ann", "bob", "cy", "dan")
    assert names(None) == ("ann", "bob", "cy")  # a list has none: those of the checkpoint stay
    with pytest.raises(DataError, match=r"trained with other labels: 2 of 3 classes .* 'bob': 2 instead of 1; give"):
        names(["ann", "art", "bob", "cy"])
    assert said == []
    assert names(["ann", "art", "bob", "cy"], accept=True) == ("ann", "art", "bob", "cy") and len(said) == 1


@pytest.mark.parametrize(
    "stored, own",
    [
        ({}, {"optimizer.name": "lars", "class_optimizer.name": "momentum"}),  # of which both keep a velocity
        ({"optimizer": {"name": "adamw"}}, {"optimizer.name": "lamb", "class_optimizer.name": "adamw"}),
        ({"class_optimizer": {"name": "adamw"}}, {}),
        ({"optimizer": {"name": "adamw"}}, {"optimizer.name": "adamw", "class_optimizer.name": "momentum"}),
    ],
)
def test_other_optimizers_are_refused(tmp_path, monkeypatch, stored, own):
    from tests.checkpoint import checkpoint_kit

    monkeypatch.setattr(checkpoint_kit, "meta_for", lambda n: meta_for(n, config=stored))
    save_as(tmp_path / "other", 12, 11, 1)
    run = run_in(tmp_path / "mine", tmp_path / "other", **own)
    with pytest.raises(CheckpointError, match=r"with optimizer.name='\w+', class_optimizer.name=.*; set them"):
        open_start_checkpoint(run, SPEC)
    run.user_objects = UserObjects(optimizer=object())  # its states have names of their own
    assert open_start_checkpoint(run, SPEC)
    names = stored.get("optimizer", {}).get("name", "momentum"), stored.get("class_optimizer", {}).get("name")
    same = {"optimizer.name": names[0], "class_optimizer.name": names[1] or names[0]}  # the same in other words
    assert open_start_checkpoint(run_in(tmp_path / "mine", tmp_path / "other", **same), SPEC)


def test_changed_settings_are_said(tmp_path):
    before = Config.from_dict({"lr": 0.2, "lr_schedule.kind": "one_cycle", "classifier.compiled": False})
    manifest = SimpleNamespace(config={**before.to_dict(), "train_steps": 500})
    manifest.config.pop("ema")  # as in a checkpoint of an earlier version
    said: list[str] = []

    def changed(**settings):
        run, said[:] = run_in(tmp_path, **settings), []
        run.log = SimpleNamespace(info=said.append)
        log_changed_settings(run, "old", manifest)
        return said

    same = {"lr": 0.2, "lr_schedule.kind": "one_cycle", "train_steps": 500}
    assert changed(**same) == []
    longer = "old was trained with train_steps=500, this run continues with 600, which changes the learning rate of all"
    assert [line[: len(longer)] for line in changed(**{**same, "train_steps": 600})] == [longer]
    for key, value in {"classifier.label_smoothing": 0.1, "ema.decay": 0.9, "optimizer.decay_vectors": False}.items():
        (line,) = changed(**{**same, key: value})
        assert line.startswith(f"old was trained with {key}=") and line.endswith(f"continues with {value}")
    assert len(changed(**{**same, "lr_schedule.kind": "piecewise", "train_steps": 600})) == 1  # no matter how long


TWO = Places((Place((0, 1), "a:/run"), Place((2,), "b:/run")), ("", "", ""))


@pytest.mark.parametrize("places, replicas, text", [
    (SHARED, 0, None),
    (SHARED, 1, "checkpoint_replicas=1: has no effect, all ranks share model_save_dir"),
    (TWO, 1, "model_save_dir is not shared, each machine keeps its part of a checkpoint: a:/run: rank(s) 0, 1; "
             "b:/run: rank(s) 2"),
])  # fmt: skip
def test_who_keeps_what_is_said_at_the_start(places, replicas, text):
    lines = []
    config = Config.from_dict({"checkpoint_replicas": replicas})
    found = _checked_places(places, config, SimpleNamespace(info=lines.append))
    assert found.all == places.all and found.replicas == (replicas if places.several else 0)
    assert lines == ([] if text is None else [text])


def test_more_replicas_than_other_machines_are_refused():
    config = Config.from_dict({"checkpoint_replicas": 2})
    with pytest.raises(ConfigError, match="checkpoint_replicas=2: the ranks write to 2 directories .* at most 1"):
        _checked_places(TWO, config, SimpleNamespace(info=print))


def test_a_new_run_has_one_name_on_all_machines():
    _require_same_name(["run_2", None, "run_2"], TWO)
    _require_same_name([".", None], SHARED)
    with pytest.raises(CheckpointError, match="the next free name is not the same: run_2 in a:/run, run_3 in b:/run"):
        _require_same_name(["run_2", None, "run_3"], TWO)
