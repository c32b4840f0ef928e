"""A rank that stands still ends the run with its name, on all ranks, after stall_timeout and on both Paddles alike."""

from __future__ import annotations

import pytest

from tests.dist.late import CASES
from tests.dist.test_resume import run_process


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("late")
    return cwd, run_process("tests.dist.late", cwd)


@pytest.mark.parametrize("name", [name for name in CASES if name != "slow"])
def test_every_rank_names_the_late_one(outcome, name):
    cwd, report = outcome
    assert report[name] == [1, 1]
    late = CASES[name][1]
    what = "it has not begun step 3, in which the other ranks wait" if "stuck" in name else "it has sent nothing"
    for rank in (0, 1):
        said = (cwd / name / f"rank{rank}.log").read_text()
        errors = [line for line in said.splitlines() if line.startswith("plsc: error: ")]
        # one that was stopped may find the others gone before it reads why
        expected = [f"rank {late}, which is late: for 4 s {what}", "stall_timeout=4"] if (
            "stuck" in name or rank != late) else ["stopped because of rank"]  # fmt: skip
        assert len(errors) == 1 and all(part in errors[0] for part in expected), said[-2000:]
        assert "std::exception" not in said and "Traceback" not in said


def test_what_a_rank_does_between_steps_may_take_longer(outcome):
    _, report = outcome
    assert report["slow"] == [0, 0]
