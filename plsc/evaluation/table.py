"""The figures of verification sets as lines of text: one look for every tool."""

from __future__ import annotations

from collections.abc import Mapping

from plsc.evaluation.verification import Verification

FAR = 1e-3  # of the column TAR@FAR


def table(results: Mapping[str, Verification]) -> list[str]:
    """A head and a line for each set, without line ends; columns are as wide as the longest name needs."""
    width = max([len("set"), *map(len, results)])
    lines = [f"{'set':{width}}  {'accuracy':16}  {'AUC':7}  {'EER':7}  TAR@FAR={FAR:g}"]
    for name, result in results.items():
        tar = result.tar_at_far.get(FAR)
        lines.append(
            f"{name:{width}}  {percent(result):16}  {result.auc:.5f}  {result.eer:.5f}  "
            + ("too few pairs" if tar is None else f"{tar:.4f}")
        )
    return lines


def percent(result: Verification) -> str:
    """Accuracy and its deviation over the folds: "99.82 % +- 0.21"."""
    return f"{100 * result.accuracy:.2f} % +- {100 * result.accuracy_std:.2f}"
