"""SIGTERM or Ctrl-C: all ranks save after one step and end with status 75; resumed, a run ends as one never stopped."""

from __future__ import annotations

import pytest

from plsc.engine.run.stopping import EXIT_STOPPED
from tests.dist.stops import CASES
from tests.dist.test_resume import STEPS, run_process
from tests.dist.tiny_run import manifest

# (exit code, step of the newest checkpoint): asked in step n (from 1) before its feed is made, the rank says so in
# the next one where the call has begun; in the verification after step 4, in step 5.
EXPECTED = {
    "one rank in training": (EXIT_STOPPED, 9),
    "all ranks in verification": (EXIT_STOPPED, 5),
    "alone": (EXIT_STOPPED, 4),
    "in the last step": (0, STEPS),
    "Ctrl-C": (EXIT_STOPPED, 4),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("stops")
    return cwd, run_process("tests.dist.stops", cwd)


@pytest.mark.parametrize("name", CASES)
def test_all_ranks_save_after_the_same_step_and_say_so_by_their_status(outcome, name):
    _, report = outcome
    code, step = EXPECTED[name]
    assert report[name]["codes"] == [code] * CASES[name][0]
    assert report[name]["newest"] == f"step_{step:08d}"


@pytest.mark.parametrize("name", CASES)
def test_the_resumed_run_ends_as_one_never_stopped(outcome, name):
    cwd, report = outcome
    assert report[name]["resumed"] == [0] * CASES[name][0]
    assert manifest(cwd / name, STEPS)["files"] == manifest(cwd / f"straight{CASES[name][0]}", STEPS)["files"]


def test_a_run_that_is_stopped_by_hand_shows_no_stack(outcome):
    cwd, _ = outcome
    said = (cwd / "rank0.log").read_text()
    assert "another one ends it unsaved" in said and "stopped: saved after step 4" in said
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
