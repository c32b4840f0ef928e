"""plsc report reads what the engine writes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plsc.cli.main import main
from plsc.cli.report import read_scalars
from plsc.errors import DataError
from plsc.evaluation.metrics.verification import VerificationMetric
from plsc.evaluation.verification import verify


def write(path, lines):
    (path / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_last_of_a_step_counts_and_figures_are_those_of_the_run(tmp_path, capsys):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((40, 8))
    embeddings = np.stack([half, half + 0.5 * rng.standard_normal((40, 8))], axis=1)
    embeddings[::2, 1] = rng.standard_normal((20, 8))
    result = verify(embeddings.reshape(80, 8), [False, True] * 20)
    write(
        tmp_path,
        [
            {"step": 10, "mean_loss": 9.0, "loss": 9.0},
            {"step": 10, "mean_loss": 8.0, "loss": 8.0},
            {"step": 20, "mean_loss": 4.0, "loss": 3.0},
            {"step": 20, "test": "pairs", **VerificationMetric().record(result)},
            {"step": 20, "test": "both", **VerificationMetric().record(result), "recall@1": 0.25, "mine": None},
            {"step": 20, "test": "items.txt", "recall@1": 0.5, "mine": 0.125},
        ],
    )
    losses, tests = read_scalars(str(tmp_path / "scalars.jsonl"))
    assert losses == [(10, 8.0), (20, 4.0)]
    step, read = tests["pairs"].step, tests["pairs"].verification
    assert step == 20 and read.accuracy == result.accuracy and read.tar_at_far == result.tar_at_far
    np.testing.assert_allclose(read.tpr, result.tpr, atol=1e-6)  # written with six digits
    main(["report", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"{100 * result.accuracy:.2f} %" in printed and "8.0000 at step 10" in printed
    both, items = "both       0.25000   -", "items.txt  0.50000   0.12500"
    assert printed.splitlines()[-3:] == ["set        recall@1  mine", both, items]
    assert tests["items.txt"].verification is None and tests["both"].numbers == {"recall@1": 0.25, "mine": None}
    main(["report", str(tmp_path), "--json"])
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert sets["items.txt"] == {"step": 20, "recall@1": 0.5, "mine": 0.125}
    assert sets["pairs"]["accuracy"] == result.accuracy
    assert sets["pairs"]["tar_at_far"]["0.1"] == result.tar_at_far[0.1]


@pytest.mark.parametrize("text", ["", "{", '{"step": 1}\n', "[]\n"])
def test_what_is_no_run_is_refused(tmp_path, text):
    if text:
        (tmp_path / "scalars.jsonl").write_text(text)
    with pytest.raises(DataError, match="scalars.jsonl"):
        main(["report", str(tmp_path)])
