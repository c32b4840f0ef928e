"""When a run is saved, stopped and resumed changes nothing of it, to the bit: sampled rows that wait go on waiting."""

from __future__ import annotations

import numpy as np
import pytest

from plsc import checkpoint
from plsc.engine.run.stopping import EXIT_STOPPED
from plsc.plugins import load
from plsc.registry import OPTIMIZERS
from tests.dist.save_points import CASES, ON_ONE_RANK, WINDOW, names
from tests.dist.test_resume import run_process
from tests.dist.tiny_run import CLASSES, manifest, told
from tests.registries import forget_afterwards

LAST = 24


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("saves")
    return cwd, run_process("tests.dist.save_points", cwd)


def steps_of(run_dir) -> set[int]:
    return {int(path.name[-8:]) for path in (run_dir / "checkpoints").iterdir()}


@pytest.mark.parametrize("name", names())
def test_weights_momentum_and_losses_are_the_same_to_the_bit(outcome, name):
    cwd, report = outcome
    ranks = CASES[name][0]
    straight, other = cwd / f"{name} straight", cwd / f"{name} other"
    assert report[f"{name}, straight"] == report[f"{name}, to its end"] == [0] * ranks
    assert report[f"{name}, stopped"] == report[f"{name}, stopped again"] == [EXIT_STOPPED] * ranks
    # by its period 3; stopped; by its period 4; stopped; by its period 5
    assert {3, 5, 8, 12, 14, 15, 20} <= steps_of(other) and not {3, 5, 8, 12, 15} & steps_of(straight)
    for step in steps_of(straight):
        assert manifest(other, step)["files"] == manifest(straight, step)["files"], step
    assert "row_history" not in manifest(straight, LAST)  # what a run that is over leaves is up to date
    losses = {key[0]: values for key, values in told(straight).items() if key[2] == "loss"}
    assert set(losses) == set(range(1, LAST + 1))
    for step, values in {key[0]: values for key, values in told(other).items() if key[2] == "loss"}.items():
        assert set(values) == set(losses[step]), step


def test_rows_were_waiting(outcome):
    """The test would say nothing otherwise: of 37 classes some have not been touched for several steps."""
    cwd, _ = outcome
    stored = str(cwd / "compiled other" / "checkpoints" / "step_00000008")
    found = checkpoint.read_manifest(stored)
    blocks = checkpoint.read_rows(
        stored, found, 0, CLASSES, checkpoint.ReadOptions(["touched"], checkpoint.ReadOptions(stored=True))
    )
    (touched,) = [rows for _, _, rows in blocks]
    assert found.row_history == {"steps": 8} and len(set(touched)) > 4 and touched.max() == 8
    assert manifest(cwd / "compiled other", 15)["row_history"] == {"steps": 15 - WINDOW}


@pytest.mark.parametrize("name", ON_ONE_RANK)
def test_another_number_of_ranks_reads_what_waits(outcome, name, monkeypatch):
    """One rank brings the rows of two up to date in float32; a reader does so in float64. Numbers are about 1."""
    cwd, report = outcome
    assert report[f"{name}, one rank"] == [0]
    run = cwd / f"{name} other"
    path = str(run / "checkpoints" / "step_00000015")
    found = checkpoint.read_manifest(path)
    if "optimizer" in found.row_history:
        forget_afterwards(monkeypatch, OPTIMIZERS)
        load(str(cwd / "my_adamw.py"))
    with np.load(run / "one_rank.npz") as arrays:
        assert {spec.name for spec in found.shard_tensors} == set(arrays)
        for tensor in arrays:
            blocks = checkpoint.read_rows(path, found, 0, CLASSES, checkpoint.ReadOptions([tensor]))
            expected = np.concatenate([rows for _, _, rows in blocks])
            np.testing.assert_allclose(arrays[tensor], expected, rtol=0, atol=3e-7 * np.abs(expected).max())
