"""Saving beside training: in order, never two at once, its errors on every rank, and only where memory allows."""

from __future__ import annotations

import json

import pytest

from plsc.checkpoint import OneRank, latest, open_checkpoint
from tests.dist.test_resume import run_process


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("disks")
    return cwd, run_process("tests.dist.disks", cwd)


@pytest.mark.parametrize("rank", [0, 1])
def test_training_goes_on_and_saves_follow_one_another(outcome, rank):
    cwd, report = outcome
    assert report["slow_disk"] == [0, 0]
    events = json.loads((cwd / "slow_disk" / f"events{rank}.json").read_text())
    saves = [event for event in events if event[0] != "step"]
    steps = [5, 7, 10, 13, 14]  # every fifth, the ends of the epochs of six and a half steps, the last
    assert [event[:2] for event in saves] == [[kind, step] for step in steps for kind in ("save begins", "save ends")]
    times = {(kind, number): when for kind, number, when in events}
    assert times["step", 6] < times["save ends", 5]  # steps 5 and 6, counted from 0, are made beside it
    assert times["step", 7] > times["save ends", 5]  # the save after them waited for it


def test_the_error_of_one_rank_ends_all_and_the_last_checkpoint_stays(outcome):
    cwd, report = outcome
    assert report["full_disk"] == [1, 1]
    for rank in (0, 1):
        log = (cwd / "full_disk" / f"rank{rank}.log").read_text()
        assert "CheckpointError: cannot save the checkpoint of step 7" in log
        assert "rank 1: No space left on device" in log
    path = latest(str(cwd / "full_disk"))
    assert path is not None and path.endswith("step_00000005")
    open_checkpoint(path, OneRank())  # every hash
    assert [entry.name for entry in (cwd / "full_disk" / "checkpoints").iterdir()] == ["step_00000005"]


def test_without_memory_for_a_copy_on_one_rank_all_wait_for_the_save(outcome):
    cwd, report = outcome
    assert report["little_memory"] == [0, 0]
    for rank in (0, 1):
        log = (cwd / "little_memory" / "logs" / f"rank_0000{rank}.log").read_text()
        assert "save_async: rank 1 has no room" in log and "was paused" not in log and "step_00000006" in log


def test_a_run_that_does_not_fit_on_one_machine_is_refused_on_all(outcome):
    cwd, report = outcome
    assert report["no_memory"] == [1, 1]
    for rank in (0, 1):
        log = (cwd / "no_memory" / f"rank{rank}.log").read_text()
        assert "ConfigError: " + ("rank 1: " if rank == 0 else "") + "memory: 2 rank(s) on this machine need" in log
    assert not (cwd / "no_memory" / "checkpoints").exists()
