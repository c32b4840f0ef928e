"""Compares the derivatives of a loss with finite differences, for the tests of a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plsc.errors import ConfigError
from plsc.losses.base import Batch, Loss

STEP = 1e-6  # of a difference: its error is about 1e-10, plus 1e-12 times the third derivative
TOLERANCE = 1e-6  # of a derivative, relative where the derivative is above 1


def check_slopes(
    loss: Loss, cosine=None, norm=None, states: Mapping[str, float] | None = None, norm_is_constant: bool = False
) -> None:
    """Raise ConfigError where a derivative of ``loss`` is wrong or a value is not finite.

    cosine, norm: the points to check, [n] each; by default 200 cosines from -0.99 to 0.99, none of them 0, and norms
    from 1 to 100. Leave out cosines at which the target is not continuous. states: values other than the initial ones.
    norm_is_constant: the loss treats the norms as constants, so no derivative by them is compared.

    Random numbers of the batch are 0.5. The check does not suit a target that depends on other features of the batch:
    all features change together here.
    """
    cosine = np.linspace(-0.99, 0.99, 200) if cosine is None else np.asarray(cosine, np.float64)
    norm = np.geomspace(1.0, 100.0, len(cosine)) if norm is None else np.asarray(norm, np.float64)
    known = {**loss.states(), **(states or {})}
    at = {"cosine": cosine, "norm": np.random.default_rng(0).permutation(norm), "block": _block(cosine)}
    middle = _values(loss, at, known)
    for moved, value, slope in (
        ("cosine", "target", "slope"),
        ("norm", "target", "slope by the norm"),
        ("norm", "penalty", "slope of the penalty"),
        ("block", "others", "slope of others"),
    ):
        if value in middle and not (moved == "norm" and norm_is_constant):
            low, high = (_values(loss, {**at, moved: at[moved] + step}, known)[value] for step in (-STEP, STEP))
            _compare(loss, slope, at[moved], middle.get(slope, np.zeros_like(cosine)), (high - low) / (2.0 * STEP))
    edges = np.array([-1.0, 0.0, 1.0])
    found = _values(loss, {"cosine": edges, "norm": norm[:3], "block": _block(edges)}, known)
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ConfigError(f"loss {type(loss).__name__}: {name} is not finite at a cosine of -1, 0 or 1: {values}")


def _block(cosine) -> np.ndarray:
    """[2, n]: cosines that differ from ``cosine``, for two classes."""
    return np.stack([np.roll(cosine, len(cosine) // 3), -0.9 * cosine])


def _values(loss: Loss, at: Mapping[str, Any], states: Mapping[str, float]) -> dict:
    """{name: value of the loss} for cosines and norms [n] and the block [2, n]."""
    import paddle

    was_dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    main = paddle.static.Program()
    try:
        with paddle.static.program_guard(main, paddle.static.Program()):
            cosine, norm = (paddle.static.data(name, [len(at[name])], "float64") for name in ("cosine", "norm"))
            block = paddle.static.data("block", list(at["block"].shape), "float64")
            known = {name: paddle.full([1], value, "float64") for name, value in states.items()}
            batch = Batch(lambda: cosine, lambda: norm, known, lambda stream: paddle.full_like(cosine, 0.5))
            found = _call(loss, batch, block)
        executor = paddle.static.Executor(paddle.CPUPlace())
        got = executor.run(main, feed=dict(at), fetch_list=list(found.values()))
        return dict(zip(found, map(np.asarray, got)))
    finally:
        if was_dynamic:
            paddle.disable_static()


def _call(loss: Loss, batch: Batch, block) -> dict[str, Any]:
    found = dict(zip(("target", "slope", "slope by the norm"), loss.target(batch)))
    batch.target = found["target"]
    if loss.overrides("penalty"):
        found.update(zip(("penalty", "slope of the penalty"), loss.penalty(batch)))
    if loss.overrides("others"):
        found.update(zip(("others", "slope of others"), loss.others(block, batch)))
    return found


def _compare(loss: Loss, name: str, where, got, expected) -> None:
    wrong = np.abs(got - expected) > TOLERANCE * np.maximum(1.0, np.abs(expected))
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0])
        raise ConfigError(
            f"loss {type(loss).__name__}: the {name} at {where[place]:.4f} is {got[place]:.6f}, finite differences "
            f"give {expected[place]:.6f}"
        )
