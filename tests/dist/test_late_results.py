"""`late_results`: a run is the same to the bit, and each log line, stop and loss that is no number names its step."""

from __future__ import annotations

import json

import pytest

from plsc.backend import static
from plsc.engine.run.stopping import EXIT_STOPPED
from tests.dist.late_results import ASKED, BAD, PERIOD, STEPS
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import manifest, told


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("late")
    return cwd, run_process("tests.dist.late_results", cwd)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_is_the_same_to_the_bit_also_stopped_and_continued(outcome, ranks):
    cwd, report = outcome
    assert report[f"always{ranks} stopped"] == [EXIT_STOPPED] * ranks
    # asked when the feed of step 8 had been made; step 10 had been started when step 9 said so
    assert report[f"always{ranks} stopped newest"] == f"step_{ASKED + 2:08d}"
    assert report[f"always{ranks} "] == report[f"never{ranks} "] == [0] * ranks
    late, in_time = cwd / f"always{ranks}", cwd / f"never{ranks}"
    for step in (PERIOD, STEPS):
        assert manifest(late, step)["files"] == manifest(in_time, step)["files"], step
    assert told(late) == told(in_time)  # losses, rates and accuracies of every step, each once
    if ranks == 1 and static.is_pir():
        lines = map(json.loads, (late / "scalars.jsonl").read_text().splitlines())
        skipped = [line["skipped"] for line in lines if "skipped" in line]
        assert 2 <= sum(skipped) < STEPS, "float16 is there for steps that are skipped"
    assert sorted({step for step, kind, _ in told(late) if kind == "train"}) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("late", ["never", "always"])
def test_a_loss_that_is_no_number_names_its_step_on_every_rank_and_is_not_saved(outcome, late):
    cwd, report = outcome
    run_dir = cwd / f"bad {late}"
    assert report[run_dir.name] == [7, 7]
    for rank in (0, 1):
        assert f"the loss is nan at step {BAD};" in (run_dir / f"error{rank}").read_text()
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["step_00000006", "step_00000007"]
    assert max(step for step, kind, _ in told(run_dir) if kind == "train") == BAD - 1
