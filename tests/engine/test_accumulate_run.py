"""Whole runs of micro-batches: ended in the middle of an epoch and continued, also with other micro-batches."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from plsc.engine.program.session import Session
from tests.dist.tiny_run import IMAGES, make_entry, manifest

STEPS, SAVED = 5, 3  # an epoch of 52 images has six and a half steps of 8


def train(run_dir: Path, steps: int, accumulate: int, batch: int) -> str:
    """Train, and return the log."""
    options = {"train_steps": steps, "accumulate": accumulate, "train_batch_size": batch, "with_test": False,
               "save_async": False, "save_period": SAVED}  # fmt: skip
    make_entry(run_dir, options).train()
    return (run_dir / "logs" / "rank_00000.log").read_text()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("runs")
    train(cwd / "straight", STEPS, 2, 4)
    with mock.patch.object(Session, "step", ended_in(SAVED + 1)), pytest.raises(RuntimeError, match="the power went"):
        train(cwd / "ended", STEPS, 2, 4)
    return cwd


def ended_in(last: int):
    """Session.step, but for an end in the step after ``last`` of them."""
    made, step = [], Session.step

    def counted(*given, **named):
        if len(made) == last:
            raise RuntimeError("the power went")
        made.append(True)
        return step(*given, **named)

    return counted


def test_a_run_goes_on_to_the_bit(directory):
    """With batch norm and dropout: their states and numbers too."""
    log = train(directory / "ended", STEPS, 2, 4)
    assert f"train: steps {SAVED} to {STEPS}," in log and "this run continues with" not in log
    assert manifest(directory / "ended", STEPS)["files"] == manifest(directory / "straight", STEPS)["files"]


def test_what_it_costs_and_changes_is_said(directory):
    log = (directory / "straight" / "logs" / "rank_00000.log").read_text()
    assert "accumulate=2: a step has 2 micro-batches of 4 images on each rank; the backbone's forward pass is" in log
    assert "accumulate=2: batch norm uses the statistics of each 4 images" in log
    assert "of the host's memory" in log and "global batch 8," in log


def test_a_run_goes_on_with_other_micro_batches(directory):
    """Its place in the data is a number of images."""
    log = train(directory / "straight", STEPS + 1, 3, 2)
    assert "was trained with accumulate=2, this run continues with 3" in log
    assert "was trained with train_batch_size=4, this run continues with 2" in log and "global batch 6," in log
    found = manifest(directory / "straight", STEPS + 1)
    assert (found["step"], found["position"]["samples"]) == (STEPS + 1, STEPS * 8 + 6) and STEPS * 8 + 6 < IMAGES
