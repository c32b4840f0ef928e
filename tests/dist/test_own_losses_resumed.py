"""States of a loss are saved and resumed, to the bit, and go along to another number of ranks."""

from __future__ import annotations

import pytest

from plsc import checkpoint
from plsc.checkpoint.reshard import reshard
from tests.dist.loss_resumes import HALF, STEPS
from tests.dist.test_other_ranks import assert_equal_to_rounding, values
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import manifest

STATES = {"classifier.loss.norm", "classifier.loss.cosine"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("loss_resumes")
    report = run_process("tests.dist.loss_resumes", cwd)
    assert {code for codes in report.values() for code in codes} == {0}
    return cwd


def test_a_resumed_run_ends_to_the_bit(runs):
    straight, resumed = (manifest(runs / name, STEPS) for name in ("straight", "resumed"))
    assert straight["files"] == resumed["files"]
    assert STATES <= {spec["name"] for spec in straight["replicated_tensors"]}
    half, end = (checkpoint.read_replicated(*opened(runs / "resumed", step)) for step in (HALF, STEPS))
    assert all(half[name] != end[name] for name in STATES)


@pytest.mark.parametrize("name", ["straight", "2 to 3"])
def test_other_ranks_end_where_one_does(runs, name):
    expected, found = values(runs / "alone"), values(runs / name)
    assert STATES <= found.keys()
    assert_equal_to_rounding(found, expected)


def test_resharding_keeps_the_states(runs, tmp_path):
    path, found = opened(runs / "straight", STEPS)
    before = checkpoint.read_replicated(path, found)
    new = reshard(path, str(tmp_path), 3)
    after = checkpoint.read_replicated(new, checkpoint.read_manifest(new))
    assert STATES <= before.keys() and all(before[name] == after[name] for name in STATES)


def opened(run_dir, step):
    path = str(run_dir / "checkpoints" / f"step_{step:08d}")
    return path, checkpoint.read_manifest(path)
