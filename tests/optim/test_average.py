"""Averages of weights and batch statistics in whole runs, against NumPy in float64 from the weights of each step."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from plsc import checkpoint
from plsc.engine.program.session import Session
from plsc.errors import CheckpointError
from tests.dist.tiny_run import make_entry

DECAY = 0.8
OPTIONS = {"ema.decay": DECAY, "train_steps": 12, "save_period": 4, "save_async": False, "test_period": 6,
           "classifier.sample_ratio": 1.0}  # fmt: skip


def stored(run_dir, step) -> dict[str, np.ndarray]:
    path = str(run_dir / "checkpoints" / f"step_{step:08d}")
    return checkpoint.read_replicated(path, checkpoint.read_manifest(path))


def log(run_dir) -> str:
    return (run_dir / "logs" / "rank_00000.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def steps():
    """[the backbone's variables after each step] of the run of ``run_dir``; the first entry is before all steps."""
    return []


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, steps):
    """A run with BN; its weights are written down after each step."""
    directory = tmp_path_factory.mktemp("average") / "run"
    step = Session.step

    def watched(self, *args, **options):
        if not steps:
            steps.append(self.read(self.program.backbone))
        results = step(self, *args, **options)
        steps.append(self.read(self.program.backbone))
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "step", watched)
        make_entry(directory, OPTIONS).train()
    return directory


def expected_average(steps, name, warmup=True):
    average = steps[0][name].astype(np.float64)
    for number, values in enumerate(steps[1:], 1):
        decay = min(DECAY, (1 + number) / (10 + number)) if warmup else DECAY
        average = decay * average + (1 - decay) * values[name]
    return average


def test_averages_are_those_of_numpy(run_dir, steps):
    """Of weights and of BN's running mean and variance. 12 roundings of float32, each up to 6e-8."""
    found = stored(run_dir, 12)
    names = [name for name in steps[0]]
    assert len(steps) == 13 and any("mean" in name or "_1" in name for name in names)
    for name in names:
        average = found[checkpoint.average_name(name)]
        expected = expected_average(steps, name)
        np.testing.assert_allclose(average, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
        np.testing.assert_array_equal(found[name], steps[-1][name])  # verifying has put all weights back
        assert np.abs(average - found[name]).max() > 1e-4 * np.abs(expected).max()


def test_a_resumed_run_has_the_same_averages_to_the_bit(run_dir, tmp_path):
    """It does not verify: the other one has put all weights back after it did, in step 6."""
    shutil.copytree(run_dir, tmp_path / "run")
    for name in ("step_00000012", "step_00000008"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / name)
    make_entry(tmp_path / "run", {**OPTIONS, "with_test": False}).train()
    again, first = stored(tmp_path / "run", 12), stored(run_dir, 12)
    assert again.keys() == first.keys() and any(name.startswith("ema.") for name in first)
    for name in first:
        np.testing.assert_array_equal(again[name], first[name])


def accuracy(run_dir, **options):
    entry = make_entry(run_dir / "verified", options)
    entry.set_checkpoint_dir(str(run_dir))
    return entry.test().sets["test_dataset"].values["xnorm"]


def test_what_is_verified(run_dir):
    """While training and after it, the averages are used; ``ema.weights: last`` uses the others."""
    lines = (run_dir / "scalars.jsonl").read_text().splitlines()
    (training,) = [one["xnorm"] for one in map(json.loads, lines) if one.get("step") == 12 and "test" in one]
    averaged, last = accuracy(run_dir), accuracy(run_dir, **{"ema.weights": "last"})
    assert training == pytest.approx(averaged, rel=1e-4) and abs(last / averaged - 1) > 1e-3
    assert "verification uses the averaged weights (ema.decay=0.8, ema.weights=auto)" in log(run_dir)
    assert "using the averaged weights of" in log(run_dir / "verified")


def test_begun_later_and_left_off(run_dir, tmp_path):
    plain = {**OPTIONS, "ema.decay": None, "train_steps": 4, "with_test": False}
    make_entry(tmp_path / "run", plain).train()
    make_entry(tmp_path / "run", {**plain, "ema.decay": 0.5, "train_steps": 5}).train()
    assert "has no averaged weights: they begin with its weights, ema.decay=0.5" in log(tmp_path / "run")
    before, after = stored(tmp_path / "run", 4), stored(tmp_path / "run", 5)
    averages = [name for name in after if name.startswith("ema.")]
    for name in averages:  # of the 5th step the decay is min(0.5, 6 / 15)
        expected = 0.4 * before[name[4:]].astype(np.float64) + 0.6 * after[name[4:]]
        np.testing.assert_allclose(after[name], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert averages
    with pytest.raises(CheckpointError, match="ema.decay=null: .* has averaged weights, which this run would not cont"):
        make_entry(tmp_path / "run", {**plain, "train_steps": 6}).train()


def test_weights_that_are_not_there(run_dir, tmp_path):
    make_entry(tmp_path / "run", {**OPTIONS, "ema.decay": None, "train_steps": 1, "with_test": False}).train()
    entry = make_entry(tmp_path / "other", {"ema.weights": "ema"})
    entry.set_checkpoint_dir(str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="ema.weights='ema': .* has no averaged weights, it was trained without"):
        entry.test()


def test_a_new_run_begins_with_them(run_dir, tmp_path):
    found = {}
    for weights in ("auto", "last"):
        options = {"init_from": "backbone", "init_checkpoint": str(run_dir), "ema.weights": weights, "train_steps": 1,
                   "lr_schedule.warmup_steps": 1, "with_test": False}  # fmt: skip  # a step of rate 0
        make_entry(tmp_path / weights, options).train()
        found[weights] = stored(tmp_path / weights, 1)
    source = stored(run_dir, 12)
    weight = next(name for name in source if name.startswith("backbone.") and "conv" in name and "w_0" in name)
    np.testing.assert_array_equal(found["auto"][weight], source[checkpoint.average_name(weight)])
    np.testing.assert_array_equal(found["last"][weight], source[weight])
    assert "start with the backbone (averaged weights) of" in log(tmp_path / "auto")
