"""Tables of metrics as lines of text, in the same format for all commands."""

from __future__ import annotations

from collections.abc import Mapping

from plsc.evaluation.logged_results import LoggedResult
from plsc.evaluation.metric import format_number
from plsc.evaluation.results import SetResult
from plsc.evaluation.verification import Verification

FAR = 1e-3  # of the column TAR@FAR


def verification_table(results: Mapping[str, Verification]) -> list[str]:
    """A header and a line for each set, without line ends."""
    width = max([len("set"), *map(len, results)])
    lines = [f"{'set':{width}}  {'accuracy':16}  {'AUC':7}  {'EER':7}  TAR@FAR={FAR:g}"]
    for name, result in results.items():
        tar = result.tar_at_far.get(FAR)
        lines.append(
            f"{name:{width}}  {format_accuracy(result):16}  {result.auc:.5f}  {result.eer:.5f}  "
            + ("too few pairs" if tar is None else f"{tar:.4f}")
        )
    return lines


def metric_tables(results: Mapping[str, SetResult]) -> list[str]:
    """A table for each metric: `verification_table`, and one with a column for each number for other metrics."""
    verified = {name: one.verification for name, one in results.items() if one.verification is not None}
    lines = verification_table(verified) if verified or not results else []
    for metric in dict.fromkeys(metric for one in results.values() for metric in one.computed):
        found = {name: one.computed[metric] for name, one in results.items() if metric in one.computed}
        if all(name in verified and one.result is verified[name] for name, one in found.items()):
            continue
        lines += numbers_table(metric, {name: one.values for name, one in found.items()})
    return lines


def logged_tables(results: Mapping[str, LoggedResult]) -> list[str]:
    """The tables of results from scalars.jsonl: one of verification, and one for each set of other numbers."""
    verified = {name: one.verification for name, one in results.items() if one.verification is not None}
    lines = verification_table(verified) if verified else []
    alike: dict[tuple[str, ...], dict[str, Mapping[str, float | None]]] = {}
    for name, one in results.items():
        if one.numbers:
            alike.setdefault(tuple(one.numbers), {})[name] = one.numbers
    return lines + [line for numbers in alike.values() for line in numbers_table("set", numbers)]


def numbers_table(metric: str, numbers: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """A header and a line for each set, from {set: {name: number}} with the same names for all sets."""
    rows = [[metric, *next(iter(numbers.values()))]]
    rows += [
        [name, *("-" if value is None else format_number(value) for value in values.values())]
        for name, values in numbers.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]


def format_accuracy(result: Verification) -> str:
    """Accuracy and its standard deviation over the folds: "99.82 % +- 0.21"."""
    return f"{100 * result.accuracy:.2f} % +- {100 * result.accuracy_std:.2f}"
