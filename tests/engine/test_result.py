"""What a run ends with, printed: some lines, not the arrays of its curves."""

from __future__ import annotations

import numpy as np

from plsc.engine.training.result import Result
from plsc.evaluation.verification import verify


def test_it_is_a_short_table():
    rng = np.random.default_rng(0)
    found = verify(rng.standard_normal((400, 8)), [True, False] * 100)
    result = Result(1200, 3.14159, "out/checkpoints/step_00001200", {"lfw": found, "agedb_30": found})
    lines = str(result).splitlines()
    assert lines[:2] == ["trained to step 1,200, loss 3.1416", "checkpoint out/checkpoints/step_00001200"]
    assert len(lines) == 5 and lines[3].startswith("lfw ") and f"{100 * found.accuracy:.2f} %" in lines[4]
    assert repr(result) == str(result) and "array" not in repr(found) and len(repr(found)) < 700


def test_what_went_otherwise_is_said():
    result = Result(7, float("nan"), "", {}, stopped=True, unverified={5: "no disk"})
    assert str(result).splitlines() == [
        "stopped after step 7, loss nan", "checkpoint none", "not verified at step 5: no disk"
    ]  # fmt: skip
