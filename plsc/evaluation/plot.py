"""A plot of a run: the loss curve and the ROC of each verification set. Needs matplotlib, imported only here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plsc.errors import ConfigError
from plsc.evaluation.output_files import whole_file
from plsc.evaluation.verification import Verification
from plsc.extras import install

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#333333", "#dddddd"


def plot_run(
    path_png: str | os.PathLike[str],
    loss_points: Sequence[tuple[int, float]],
    verifications: Mapping[str, Verification],
) -> None:
    """Write a PNG: on the left the loss over the steps, on the right TAR over FAR (logarithmic) per set. Atomic.

    loss_points: (step, loss); non-finite points are left out. verifications: {name of the set: result}.
    Either may be empty; its plot then says so.

    Raises ConfigError if matplotlib is not installed, DataError if the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"report: matplotlib cannot be imported ({error}); {install('report')}") from error
    figure = Figure(figsize=(13, 5.2), dpi=120, layout="constrained")  # not pyplot: no window, no global state
    loss_axes, roc_axes = figure.subplots(1, 2)
    _draw_loss(loss_axes, loss_points)
    _draw_roc(roc_axes, verifications)
    with whole_file(path_png, "report") as file:
        FigureCanvasAgg(figure).print_figure(file, format="png")


def _draw_loss(axes: Axes, points: Sequence[tuple[int, float]]) -> None:
    table = np.array([point for point in points if np.isfinite(point[1])], np.float64).reshape(-1, 2)
    _style(axes, "Training loss", "step", "loss (nats per image, mean of the global batch)")
    if not len(table):
        _write_note(axes, "no loss was logged")
        return
    steps, losses = table[np.argsort(table[:, 0], kind="stable")].T
    marker = "o" if len(steps) <= 30 else ""
    dense = len(steps) >= 50
    axes.plot(steps, losses, color="#1f77b4", marker=marker, ms=3, lw=1, alpha=0.4 if dense else 1, label="loss")
    if dense:
        width = len(steps) // 20
        axes.plot(steps, _smoothed(losses, width), color="#1f77b4", lw=2, label=f"mean of {width} logged points")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # what it is, a MaxNLocator, has it
    axes.legend(frameon=False, labelcolor=INK)


def _draw_roc(axes: Axes, verifications: Mapping[str, Verification]) -> None:
    _style(
        axes, "Verification (ROC)", "FAR: fraction of different pairs accepted", "TAR: fraction of same pairs accepted"
    )
    if not verifications:
        _write_note(axes, "no verification set")
        return
    left = min(1.0 / result.num_different for result in verifications.values()) / 2
    lowest = 1.0
    for name, result in verifications.items():
        # FAR 0 is drawn at the left edge of the logarithmic axis. Steps: the TAR at an FAR of at most x.
        label = f"{name}: accuracy {100 * result.accuracy:.2f} %, AUC {result.auc:.4f}, EER {100 * result.eer:.2f} %"
        start = int(np.count_nonzero(result.fpr == 0)) - 1
        axes.plot(np.maximum(result.fpr[start:], left), result.tpr[start:], drawstyle="steps-post", lw=1.8, label=label)
        lowest = min(lowest, float(result.tpr[start]))
    axes.plot(np.geomspace(left, 1, 200), np.geomspace(left, 1, 200), color="#999999", ls="--", lw=1, label="chance")
    bottom = max(0.0, np.floor(10 * lowest - 1) / 10)
    axes.set_xscale("log")
    axes.set_xlim(left, 1)
    axes.set_ylim(bottom, 1 + 0.02 * (1 - bottom))
    axes.legend(frameon=True, framealpha=0.9, edgecolor=GRID, labelcolor=INK, fontsize=9, loc="lower right")


def _style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.grid(True, which="major", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _write_note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#888888")


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average over `width` values; the window is smaller at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at + (width + 1) // 2, len(values))
    return (total[high] - total[low]) / (high - low)
