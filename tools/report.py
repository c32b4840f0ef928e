"""The figures of a run as a table, its loss curve and ROC as a picture: `report.py RUN --picture out.png`."""

from __future__ import annotations

import argparse
import json
import os
import sys

import numpy as np

from plsc.errors import DataError
from plsc.evaluation.report import plot_report
from plsc.evaluation.table import table
from plsc.evaluation.verification import Verification
from plsc.files import safe_open
from plsc.parallel.excepthook import install_excepthook


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="the model_save_dir of a run")
    parser.add_argument("--picture", help="write loss curve and ROC to this PNG (needs plsc[report])")
    options = parser.parse_args(arguments)
    losses, tests = read_scalars(os.path.join(options.run, "scalars.jsonl"))
    print_table(losses, tests)
    if options.picture:
        plot_report(options.picture, losses, {name: verification for name, (_, verification) in tests.items()})


def read_scalars(path: str) -> tuple[list[tuple[int, float]], dict[str, tuple[int, Verification]]]:
    """([(step, mean loss)], {set: (step, its last verification)}). Of a step that was done twice the last counts.

    Raises DataError for a file that is missing or is not what a run writes.
    """
    losses: dict[int, float] = {}
    tests: dict[str, tuple[int, Verification]] = {}
    try:
        with safe_open.open_text(path, safe_open.LIST) as file:
            for line in file:
                values = json.loads(line)
                if "test" in values:
                    tests[values["test"]] = (values["step"], verification_of(values))
                else:
                    losses[values["step"]] = values["mean_loss"]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the model_save_dir of a run") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not the scalars.jsonl of a run: {type(error).__name__} {error}") from None
    return sorted(losses.items()), tests


def verification_of(values: dict) -> Verification:
    """The verification that a line of scalars.jsonl tells of."""
    roc = values["roc"]
    return Verification(
        accuracy=values["accuracy"],
        accuracy_std=values["accuracy_std"],
        threshold=values["threshold"],
        tar_at_far={float(far): tar for far, tar in values["tar_at_far"].items()},
        auc=values["auc"],
        eer=values["eer"],
        xnorm=values["xnorm"],
        fpr=np.array(roc["fpr"]),
        tpr=np.array(roc["tpr"]),
        num_same=values["num_same"],
        num_different=values["num_different"],
    )


def print_table(losses: list[tuple[int, float]], tests: dict[str, tuple[int, Verification]]) -> None:
    if losses:
        print(f"loss {losses[0][1]:.4f} at step {losses[0][0]}, {losses[-1][1]:.4f} at step {losses[-1][0]}")
    if not tests:
        print("no verification in this run")
        return
    print("\n".join(table({name: result for name, (_, result) in tests.items()})))


if __name__ == "__main__":
    install_excepthook()
    sys.exit(main())
