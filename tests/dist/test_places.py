"""Ranks that do not share a disk train, save, are killed and go on as on one disk: weights and losses to the bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from plsc.checkpoint import OneRank, latest, open_checkpoint
from plsc.errors import CheckpointError
from tests.dist.places_cases import KILLED_AT
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import manifest, told


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("places")
    return cwd, run_process("tests.dist.places_cases", cwd)


def log_of(run_dir: Path, rank: int) -> str:
    return (run_dir / "logs" / f"rank_{rank:05d}.log").read_text()


def losses(*run_dirs: Path) -> dict:
    """{step: the values that were told of it}, wherever rank 0 was."""
    found: dict = {}
    for run_dir in run_dirs:
        for (step, _, name), values in told(run_dir).items():
            if name == "loss":
                found.setdefault(step, set()).update(values)
    return found


def test_killed_between_the_phases_and_moved_it_ends_the_same_to_the_bit(outcome):
    cwd, report = outcome
    assert report["shared, all"] == report["own, moved"] == [0, 0]
    assert -signal.SIGKILL in report["own, killed"]
    left = {path.name for path in (cwd / "own" / "left by the kill").iterdir()}
    assert f".tmp_step_{KILLED_AT:08d}" in left and f"step_{KILLED_AT:08d}" not in left
    for disk in ("disk0", "disk1"):
        run_dir = cwd / "own" / disk / "run"
        assert manifest(run_dir, 24)["files"] == manifest(cwd / "shared" / "disk0" / "run", 24)["files"]
        assert f"/checkpoints/step_{KILLED_AT:08d}, step {KILLED_AT}" in log_of(run_dir, disk == "disk0")
        kept = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
        # the first one is that which the run went on from
        assert kept == ["step_00000010", "step_00000020", "step_00000024"]
        with pytest.raises(CheckpointError, match="on the disks of other machines"):
            latest(str(run_dir))
    own = losses(cwd / "own" / "disk0" / "run", cwd / "own" / "disk1" / "run")
    assert own == losses(cwd / "shared" / "disk0" / "run") and set(map(len, own.values())) == {1}


def whole_at(address: Path) -> dict[str, str]:
    """{its place at the address: the hashes of its files} of each checkpoint that is whole there."""
    found = [path.parent for path in address.rglob("manifest.json")]
    return {str(path.relative_to(address)): str(open_checkpoint(str(path), OneRank())[1].files) for path in found}


def test_every_save_is_copied_while_training_goes_on_and_the_old_ones_go_there_as_well(outcome):
    cwd, _ = outcome
    before = {path.parent.name for path in (cwd / "copied" / "address" / "checkpoints").rglob("manifest.json")}
    shared = cwd / "shared" / "disk0" / "run"
    for name in ("own", "copied"):
        found = whole_at(cwd / name / "address")
        assert {"checkpoints/step_00000020", "checkpoints/step_00000024"} <= set(found)
        assert len([one for one in found if one.startswith("best/")]) == 1
        for one in ("checkpoints/step_00000020", "checkpoints/step_00000024"):
            assert found[one] == str(open_checkpoint(str(shared / one), OneRank())[1].files)
        assert not {f"checkpoints/step_{step:08d}" for step in (13, 14, 15)} & set(found)
    assert before


def test_what_was_copied_replaces_a_lost_machine(outcome):
    """Killed at step 10, of which disk 0 has its part; at the address are 5 and 7, which end the same to the bit."""
    cwd, report = outcome
    assert report["copied, all"] == [0, 0]
    text = log_of(cwd / "copied" / "disk0" / "run", 0)
    assert "continue from run/fetched/step_00000007_" in text and ", step 7\n" in text
    for disk in ("disk0", "disk2"):
        assert manifest(cwd / "copied" / disk / "run", 24)["files"] == manifest(
            cwd / "shared" / "disk0" / "run", 24
        )["files"]


def test_the_parts_put_together_are_the_whole_checkpoint(outcome):
    """Also the best one, which is linked in every place."""
    cwd, _ = outcome
    for inside in ("run", "run/best"):
        whole = Path(latest(str(cwd / "shared" / "disk0" / inside)))
        parts = [cwd / "own" / disk / inside / "checkpoints" / whole.name for disk in ("disk0", "disk1")]
        found = {file.name: file.read_bytes() for part in parts for file in part.iterdir()}
        expected = {file.name: file.read_bytes() for file in whole.iterdir()}
        for name in set(expected) - {"manifest.json", "manifest.sha256"}:
            assert found[name] == expected[name], name
        assert len({(part / "manifest.json").read_bytes() for part in parts}) == 1
        notes = [json.loads((part / "elsewhere.json").read_text()) for part in parts]
        assert all(len(note) == 1 for note in notes)


def test_the_log_says_who_has_what_and_one_disk_says_nothing(outcome):
    cwd, _ = outcome
    text = log_of(cwd / "own" / "disk1" / "run", 1)
    assert "model_save_dir is not shared, each machine keeps its part of a checkpoint: " in text
    assert f"{cwd}/own/disk0/run: rank(s) 0; " in text and f"{cwd}/own/disk1/run: rank(s) 1" in text
    assert "not shared" not in log_of(cwd / "shared" / "disk0" / "run", 0)
    assert not list((cwd / "shared" / "disk0" / "run").rglob("elsewhere.json"))
    assert not [path for path in cwd.rglob(".plsc*")]


@pytest.mark.parametrize("name, disks", [("one copy", [2, 1]), ("replicas", [2, 1])])
def test_lost_machines_are_served_and_it_ends_the_same_to_the_bit(outcome, name, disks):
    cwd, report = outcome
    ranks = {"one copy": [0, 0], "replicas": [0, 0, 0]}[name]
    assert report[f"{name}, half"] == report[f"{name} shared, half"] == ranks
    assert report[f"{name}, all"] == report[f"{name} shared, all"] == [0, 0]
    expected = cwd / f"{name} shared" / "disk0" / "run"
    last = int(Path(latest(str(expected))).name[-8:])
    for disk in disks:
        assert manifest(cwd / name / f"disk{disk}" / "run", last)["files"] == manifest(expected, last)["files"]
    own = losses(cwd / name / "disk0" / "run", cwd / name / f"disk{disks[0]}" / "run")
    assert own == losses(expected) and len(own) == last


def test_rows_that_every_rank_holds_are_whole_in_every_place(outcome):
    cwd, _ = outcome
    for disk in (1, 2):
        assert open_checkpoint(str(cwd / "one copy" / f"disk{disk}" / "run"), OneRank())[1].step == 12


def test_a_lost_machine_without_replicas_is_one_line_on_every_rank(outcome):
    cwd, report = outcome
    assert report["lost, half"] == [0, 0] and report["lost, all"] == [1, 1]
    lines = []
    for rank in (0, 1):
        text = (cwd / "lost" / "all" / f"rank{rank}.log").read_text()
        lines += [line for line in text.splitlines() if "is whole in all places together" in line]
    assert lines and all("the run kept shard_00001_of_00002.safetensors in " in line for line in lines)
    assert all("start the machines that have the rest" in line for line in lines)
