"""States of a loss are saved and resumed, to the bit, and go along to another number of ranks; so do random margins and
several centres per class."""

from __future__ import annotations

import pytest

from plsc import checkpoint
from plsc.checkpoint.reshard import reshard
from tests.dist.loss_resumes import ALONE, HALF, LOSSES, STEPS
from tests.dist.test_other_ranks import assert_equal_to_rounding, values
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import manifest


def states_of(loss):
    return {f"classifier.loss.{name}" for name in LOSSES[loss][0]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("loss_resumes")
    report = run_process("tests.dist.loss_resumes", cwd)
    assert {code for codes in report.values() for code in codes} == {0}
    return cwd


@pytest.mark.parametrize("loss", LOSSES)
def test_a_resumed_run_ends_to_the_bit(runs, loss):
    straight, resumed = (manifest(runs / loss / name, STEPS) for name in ("straight", "resumed"))
    assert straight["files"] == resumed["files"]
    kept = {spec["name"] for spec in straight["replicated_tensors"] if spec["name"].startswith("classifier.loss.")}
    assert kept == states_of(loss)
    half, end = (checkpoint.read_replicated(*opened(runs / loss / "resumed", step)) for step in (HALF, STEPS))
    assert all(half[name] != end[name] for name in kept)


@pytest.mark.parametrize("loss", ALONE)
@pytest.mark.parametrize("name", ["straight", "2 to 3"])
def test_other_ranks_end_where_one_does(runs, loss, name):
    expected, found = values(runs / loss / "alone"), values(runs / loss / name)
    assert states_of(loss) <= found.keys()
    assert_equal_to_rounding(found, expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_resharding_keeps_the_states(runs, loss, tmp_path):
    path, found = opened(runs / loss / "straight", STEPS)
    before = checkpoint.read_replicated(path, found)
    new = reshard(path, str(tmp_path), 3)
    after = checkpoint.read_replicated(new, checkpoint.read_manifest(new))
    assert states_of(loss) <= before.keys() and all(before[name] == after[name] for name in states_of(loss))


def opened(run_dir, step):
    path = str(run_dir / "checkpoints" / f"step_{step:08d}")
    return path, checkpoint.read_manifest(path)
