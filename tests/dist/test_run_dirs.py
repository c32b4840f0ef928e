"""No run buries another one: a directory that holds a run is refused, two at once too; a damaged checkpoint is not the
end of a run."""

from __future__ import annotations

import pytest

from plsc.checkpoint import OneRank, open_checkpoint
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import told

REFUSED = 3


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("claims")
    return cwd, run_process("tests.dist.claims", cwd)


def said(cwd, name: str, rank: int = 0) -> str:
    return (cwd / name / f"rank{rank}.log").read_text()


def steps(run_dir) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.mark.parametrize("name, ranks", [("again", 1), ("again on two", 2), ("from an older one", 1)])
def test_a_directory_that_holds_a_run_is_refused_on_every_rank(outcome, name, ranks):
    cwd, report = outcome
    assert report["first"] == [0] and report[name] == [REFUSED] * ranks
    for rank in range(ranks):
        error = [line for line in said(cwd, name, rank).splitlines() if line.startswith("ConfigError: ")]
        assert len(error) == 1, said(cwd, name, rank)
        for part in (f"model_save_dir={str(cwd / 'out')!r} holds a run already", "checkpoints/step_0000000",
                     "resume: auto", "resume: new", str(cwd / "out" / "run_2"), "another model_save_dir"):  # fmt: skip
            assert part in error[0]


def test_who_goes_on_from_the_newest_checkpoint_buries_nothing(outcome):
    cwd, report = outcome
    assert report["from its newest"] == [0] and "step_00000008" in said(cwd, "from its newest")


def test_another_run_begins_beside_it(outcome):
    cwd, report = outcome
    assert report["beside"] == report["beside again"] == report["new in a new place"] == [0]
    assert f"saved {cwd}/out/run_2/checkpoints/step_00000002" in said(cwd, "beside")
    assert f"saved {cwd}/out/run_3/checkpoints/step_00000002" in said(cwd, "beside again")
    assert f"saved {cwd}/fresh/checkpoints/step_00000002" in said(cwd, "new in a new place")
    assert f"{cwd}/out holds a run: this one writes to {cwd}/out/run_2" in said(cwd, "beside")
    assert {step for step, _, _ in told(cwd / "out" / "run_2")} == {1, 2}
    assert all(len(values) == 1 for key, values in told(cwd / "out").items() if key[0] <= 6)  # goes on later


def test_two_at_once_in_one_directory(outcome):
    cwd, report = outcome
    assert report["busy second"] == report["busy resumed"] == [REFUSED]
    assert report["busy first"] == report["busy beside"] == [0]
    for name in ("busy second", "busy resumed"):
        assert "CheckpointError: model_save_dir=" in said(cwd, name) and "trains there since" in said(cwd, name)
    assert "busy/run_2/checkpoints/step_00000006" in said(cwd, "busy beside")
    assert all(len(values) == 1 for values in told(cwd / "busy").values())
    assert not list(cwd.rglob(".plsc_lock*"))


def test_a_damaged_checkpoint_is_passed_over_loudly(outcome):
    cwd, report = outcome
    assert report["damaged"] == [0, 0]
    log = said(cwd, "damaged")
    assert "SHA-256 differs" in log and "is skipped for" in log and "damaged_step_00000008" in log
    assert "continue from" in log and "step 6" in log and "step_00000010" in log
    assert "damaged_step_00000008" in steps(cwd / "out")


@pytest.mark.parametrize("name", ["all damaged", "all damaged, again"])
def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew_by_itself(outcome, name):
    cwd, report = outcome
    assert report[name] == [REFUSED]
    assert "is complete and undamaged" in said(cwd, name) and "move them away to start over" in said(cwd, name)
    assert not any(path.startswith("step_") for path in steps(cwd / "out"))


def test_what_was_just_saved_stays_though_it_is_the_oldest(outcome):
    cwd, report = outcome
    assert report["with a newer one"] == [0]
    assert steps(cwd / "newer") == ["step_00000002", "step_00000040"]
    open_checkpoint(str(cwd / "newer" / "checkpoints" / "step_00000002"), OneRank())
