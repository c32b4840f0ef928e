"""The head of classifier.kernels: plsc on a GPU, run on a CPU: blocks unrolled in the program, and float16 factors."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.classifiers import ClassifierSpec, Shard, StepContext, classify, plain_head
from plsc.losses.combined import Combined
from plsc.parallel.environment import Environment
from plsc.rows import gradients
from plsc.rows.blocks import RowBlocks, gpu_block_rows
from plsc.rows.given_rows import GivenRows

paddle.enable_static()
BATCH, CLASSES, EMBEDDING, SCALE, LOSS_SCALE = 6, 11, 5, 16.0, 4096.0
MARGIN1, MARGIN2, MARGIN3 = 0.9, 0.3, 0.1


def rounded(x):
    """``x`` float32 with 11 significant bits (Veltkamp's splitting)."""
    large = x * (2.0**13 + 1.0)
    return large - (large - x)


def expected(feature, rows, label, half):
    """The formulas of docs/design.md in float64; the cosines of other classes, and these only, from rounded vectors."""
    norms = [np.linalg.norm(values, axis=1, keepdims=True) for values in (feature, rows)]
    f, u = feature / norms[0], rows / norms[1]
    cosine = f.astype("float16").astype("float64") @ u.astype("float16").astype("float64").T if half else f @ u.T
    own = np.eye(CLASSES)[label]
    target = (f * u[label]).sum(1)
    theta = np.arccos(target)
    with_margin = np.cos(MARGIN1 * theta + MARGIN2) - MARGIN3
    slope = MARGIN1 * np.sin(MARGIN1 * theta + MARGIN2) / np.sin(theta)
    z = SCALE * np.where(own > 0, with_margin[:, None], cosine)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    others = SCALE / BATCH * p * (1 - own)
    of_target = (SCALE / BATCH * ((p * own).sum(1) - 1) * slope)[:, None]
    dfeature = others @ u
    dfeature = (dfeature - f * (dfeature * f).sum(1, keepdims=True)) / norms[0]
    dfeature += of_target * (u[label] - target[:, None] * f) / norms[0]
    drows = (others.T @ f - (others * cosine).sum(0)[:, None] * u) / norms[1]
    np.add.at(drows, label, of_target * (f - target[:, None] * u[label]) / norms[1][label])
    sizes = np.abs(others.T / norms[1]) @ np.abs(f).sum(1)
    bound = sizes.sum() + np.abs(of_target * (f - target[:, None] * u[label]) / norms[1][label]).sum()
    return -np.log((p * own).sum(1)).mean(), dfeature, drows, bound


def head(monkeypatch, half, block_rows):
    """(the program; loss, dfeature, bound of the rows' gradients, whether one is not finite, the gradients)."""
    # A CPU has no product of float16: the factors are rounded to its 11 bits, and multiplied as float32. Not by a cast,
    # which rounds towards 0 with Paddle 2.6.
    cast = paddle.cast
    to_half = lambda x, dtype: rounded(x) if dtype == "float16" else cast(x, dtype)  # noqa: E731
    monkeypatch.setattr(plain_head.paddle, "cast", to_half)
    main, env = paddle.static.Program(), Environment(device="gpu")
    with paddle.static.program_guard(main, paddle.static.Program()):
        x = paddle.static.data("feature", [BATCH, EMBEDDING], "float32")
        y = paddle.static.data("label", [BATCH], "int64")
        w = paddle.static.data("rows", [CLASSES, EMBEDDING], "float32")
        loss = Combined(MARGIN1, MARGIN2, MARGIN3)
        spec = ClassifierSpec(CLASSES, EMBEDDING, loss, SCALE, half=half, kernels="plsc")
        scale, fed, drows = paddle.full([1], LOSS_SCALE, "float32"), GivenRows(w), []
        context = StepContext(spec, Shard.of(spec, env), env, loss_scale=scale, block_rows=block_rows)
        out = classify(x, y, fed, context)
        out.row_gradients.blocks.for_each_piece(
            lambda piece: drows.append(out.row_gradients.compute(piece, fed.fetch(piece))) or ()
        )
        examined = out.row_gradients.not_finite()
    assert len(drows) == -(-CLASSES // block_rows)
    return main, [out.loss, out.dfeature, out.row_gradients.bound, examined, *drows]


def inputs():
    rng = np.random.default_rng(0)
    feature, rows = (rng.standard_normal((n, EMBEDDING)).astype("float32") for n in (BATCH, CLASSES))
    return {"feature": feature, "rows": rows, "label": rng.integers(0, CLASSES, BATCH)}


def run(main, feed, fetches):
    return paddle.static.Executor(paddle.CPUPlace()).run(main, feed=feed, fetch_list=fetches)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("block_rows", [4, 1, 11])
def test_loss_and_gradients_are_those_of_the_formula(monkeypatch, half, block_rows):
    main, (loss, dfeature, bound, examined, *drows) = head(monkeypatch, half, block_rows)
    feed = inputs()
    feature, rows, label = (feed[name].astype("float64") for name in ("feature", "rows", "label"))
    label = label.astype("int64")
    if not half:
        assert bound is None  # there is no loss scale then
    fetches = [loss, dfeature, bound if half else loss, examined, *drows]
    loss, dfeature, bound, examined, *drows = run(main, feed, fetches)
    *wanted, sizes = expected(feature, rows, label, half)
    assert examined == 0.0
    if half:
        assert bound == pytest.approx(sizes, rel=1e-4)  # float32, and cosines of float16 in the softmax of both
        assert max(np.abs(part).max() for part in drows) < 2 * bound
    # The same rounded factors, so what is left are float32 cosines, off by 1e-7, times the scale of 16 and a slope of a
    # few. A factor that falls to the other side of a rounding to float16 would be off by 5e-4: there is none here.
    for got, right in zip((loss, dfeature / LOSS_SCALE, np.concatenate(drows)), wanted):
        np.testing.assert_allclose(got, right, rtol=0, atol=2e-5 * np.abs(right).max())
    if half:  # the rounding is there, and as small as it should be: 2^-11 of two factors, times the scale
        exact = expected(feature, rows, label, False)[0]
        assert 1e-6 < abs(loss[0] - exact) < 2 * SCALE * 2**-11


def test_gradients_that_are_not_finite_are_seen_without_computing_them(monkeypatch):
    main, (_, _, bound, examined, *_) = head(monkeypatch, True, 4)
    for name, value in (("rows", np.nan), ("rows", np.inf), ("rows", 1e30), ("feature", np.inf), ("label", -1)):
        feed = inputs()
        feed[name].flat[7 % feed[name].size] = value
        assert run(main, feed, [examined])[0] == 1.0, (name, value)
    monkeypatch.setattr(gradients, "LARGEST_BOUND", 1e-3)
    main, (_, _, bound, examined, *_) = head(monkeypatch, True, 4)
    bound, examined = run(main, inputs(), [bound, examined])
    assert 1e-3 < bound and examined == 1.0


@pytest.mark.parametrize("rows, features, blocks", [
    (412_500, 1024, 8), (2_500_000, 512, 8), (100, 64, 1), (4096, 1024, 1), (4097, 1024, 2), (2**21, 2**13, 9),
    (7, 2**31 - 1, 7), (10**6, 2**17, 62),
])  # fmt: skip
def test_blocks_on_gpus_are_few_and_countable(rows, features, blocks):
    with paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()):
        made, bounds = RowBlocks(None, rows, gpu_block_rows(rows, features), on_gpu=True), []
        made.for_each(lambda block: bounds.append((block.first, block.end)) or ())
    assert len(bounds) == blocks and not made.is_single
    assert [first for first, _ in bounds] == [0, *(end for _, end in bounds[:-1])] and bounds[-1][1] == rows
    assert max(end - first for first, end in bounds) * features < 2**31
