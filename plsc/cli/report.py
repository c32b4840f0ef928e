"""The metrics of a run as a table, its loss curve and ROC as a plot: plsc report RUN --picture out.png"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from plsc.cli.options import add_json, check_json, print_json
from plsc.errors import DataError
from plsc.files import safe_open
from plsc.terminal import print_stdout

if TYPE_CHECKING:
    from plsc.evaluation.logged_results import LoggedResult


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the model_save_dir of a run")
    parser.add_argument("--picture", metavar="FILE", help="write loss curve and ROC to this PNG; needs matplotlib")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    check_json(options)
    losses, tests = read_scalars(os.path.join(options.run, "scalars.jsonl"))
    if not print_json(options, as_plain(losses, tests)):
        print_table(losses, tests)
    if options.picture:
        from plsc.evaluation.plot import plot_run

        verified = {name: one.verification for name, one in tests.items() if one.verification is not None}
        plot_run(options.picture, losses, verified)


def as_plain(losses: list[tuple[int, float]], tests: dict[str, LoggedResult]) -> dict:
    """{"loss": [[step, mean loss], ...], "sets": {name: metrics as in scalars.jsonl, without the curve}}."""
    return {"loss": losses, "sets": {name: one.plain() for name, one in tests.items()}}


def read_scalars(path: str) -> tuple[list[tuple[int, float]], dict[str, LoggedResult]]:
    """([(step, mean loss)], {set: its last metrics}). A step that was logged twice counts once, the last time.

    Raises DataError for a missing file, and for one that no run wrote.
    """
    from plsc.evaluation.logged_results import parse_logged

    losses: dict[int, float] = {}
    tests: dict[str, LoggedResult] = {}
    try:
        with safe_open.open_text(path, safe_open.LIST) as file:
            for line in file:
                values = json.loads(line)
                if "test" in values:
                    tests[values["test"]] = parse_logged(values)
                else:
                    losses[values["step"]] = values["mean_loss"]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the model_save_dir of a run") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not the scalars.jsonl of a run: {type(error).__name__} {error}") from None
    return sorted(losses.items()), tests


def print_table(losses: list[tuple[int, float]], tests: dict[str, LoggedResult]) -> None:
    if losses:
        print_stdout(f"loss {losses[0][1]:.4f} at step {losses[0][0]:,}, {losses[-1][1]:.4f} at step {losses[-1][0]:,}")
    if not tests:
        print_stdout("no verification in this run")
        return
    from plsc.evaluation.tables import logged_tables

    print_stdout("\n".join(logged_tables(tests)))
