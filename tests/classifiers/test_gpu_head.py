"""The GPU head on the CPU: only its kernel is replaced, by the formula in differentiable operations, on one rank."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc import LargeScaleClassifier
from plsc.backend import ops
from plsc.classifiers import ClassifierSpec, Shard, StepContext, classify
from plsc.classifiers.gpu_head import Labels, gpu_head
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.engine.program.session import Session
from plsc.losses.combined import Combined
from plsc.losses.softmax import Softmax
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group
from plsc.rows.blocks import RowBlocks
from plsc.rows.given_rows import GivenRows
from tests.dist.training_cases import Linear, tensor
from tests.reference.margin_softmax import margin_softmax

paddle.enable_static()
BATCH, CLASSES, EMBEDDING, SCALE = 6, 11, 5, 16.0
MARGINS = [(1.0, 0.5, 0.0), (1.0, 0.0, 0.35), (1.35, 0.0, 0.0), (0.9, 0.3, 0.1)]


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    monkeypatch.setattr(ops, "margin_cross_entropy", formula)


def formula(cosine, label, margins, scale, rank, world_size):
    """ArcFace's eq. 4 and the negative log-likelihood [G, 1]; Paddle differentiates it."""
    margin1, margin2, margin3 = margins
    own = paddle.nn.functional.one_hot(paddle.squeeze(label, 1), CLASSES)
    with_margin = paddle.cos(margin1 * paddle.acos(cosine) + margin2) - margin3
    logits = scale * (cosine * (1.0 - own) + with_margin * own)
    return -paddle.sum(paddle.nn.functional.log_softmax(logits, axis=1) * own, axis=1, keepdim=True)


def numbers():
    rng = np.random.default_rng(0)
    feature, rows = (rng.standard_normal((n, EMBEDDING)).astype("float32") for n in (BATCH, CLASSES))
    return feature, rows, rng.integers(0, CLASSES, BATCH)


def close(got, expected):
    # float32 cosines are off by 1e-7, times the scale of 16 and a slope of a few
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("margins", MARGINS)
@pytest.mark.parametrize("loss_scale,num_rows", [(None, CLASSES), (4096.0, -1)])  # -1: sampled, known in the step only
def test_loss_and_gradients_are_those_of_the_formula(margins, loss_scale, num_rows):
    feature, rows, label = numbers()
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        x = paddle.static.data("feature", [BATCH, EMBEDDING], "float32")
        y = paddle.static.data("label", [BATCH], "int64")
        w = paddle.static.data("rows", [num_rows, EMBEDDING], "float32")
        scale = None if loss_scale is None else paddle.full([1], loss_scale, "float32")
        spec, env = ClassifierSpec(CLASSES, EMBEDDING, Combined(*margins), SCALE, calc_acc=True), Environment()
        blocks = RowBlocks(None, CLASSES, None)
        context = StepContext(spec, Shard.of(spec, env), env, loss_scale=scale)
        out = gpu_head(x, blocks, w, Labels(y, y >= 0, y), context, float(BATCH))
        drows = out.row_gradients.compute(out.row_gradients.blocks.only_piece, w)
        assert x.stop_gradient and w.stop_gradient  # as they came
    feed = {"feature": feature, "label": label, "rows": rows}
    loss, dfeature, drows, larger = paddle.static.Executor(paddle.CPUPlace()).run(
        main, feed=feed, fetch_list=[out.loss, out.dfeature, drows, out.num_larger]
    )
    expected = margin_softmax(feature.astype("float64"), rows.astype("float64"), label, margins, SCALE)
    close(loss, np.array([expected[0]]))
    close(dfeature / (loss_scale or 1.0), expected[1])  # the caller divides this one
    close(drows, expected[2])
    cosine = (feature @ rows.T) / np.linalg.norm(feature, axis=1)[:, None] / np.linalg.norm(rows, axis=1)
    np.testing.assert_array_equal(larger, (cosine >= cosine[np.arange(BATCH), label][:, None]).sum(1))


def test_classifier_in_a_users_program(monkeypatch):
    """The gradients that the user's program gets through the loss, with the head of the GPU."""
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    feature, _, label = numbers()
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard():
        x = paddle.static.data("feature", [BATCH, EMBEDDING], "float32")
        x.stop_gradient = False
        y = paddle.static.data("label", [BATCH], "int64")
        made = LargeScaleClassifier(x, y, 0, 1, CLASSES, scale=SCALE, embedding_size=EMBEDDING)
        dfeature, dweight = paddle.static.gradients([made.output_dict["loss"]], [x, made.weight])
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(paddle.static.Scope()):
        executor.run(startup)
        fetches = [made.output_dict["loss"], dfeature, dweight, made.weight]
        got = executor.run(main, feed={"feature": feature, "label": label}, fetch_list=fetches)
    expected = margin_softmax(feature.astype("float64"), got[3].astype("float64"), label, MARGINS[0], SCALE)
    for value, reference in zip(got, (np.array([expected[0]]), expected[1], expected[2])):
        close(value, reference)


@pytest.mark.parametrize("model_parallel", [True, False])
def test_training_is_that_of_the_cpu(monkeypatch, model_parallel):
    """One rank, all classes: the program of a GPU, run on the CPU with the kernel's formula, and that of the CPU."""
    cpu = paddle.CPUPlace()
    monkeypatch.setattr("plsc.engine.program.scopes.device_place", lambda env: cpu)
    ends = []
    for device in ("gpu", "cpu"):
        config = Config.from_dict(
            {
                "classifier": {"num_classes": CLASSES, "scale": SCALE, "model_parallel": model_parallel},
                "model": {"image_shape": [3, 2, 3]},
                "train_batch_size": BATCH,
            }
        )
        env = Environment(device=device)
        program = build_train(config, UserObjects(model=Linear(EMBEDDING)), env, seed=7)
        session = Session(program, env, seed=7)
        session.start(Group(Environment()))
        rng = np.random.default_rng(1)
        losses = []
        for number in range(4):
            image = rng.standard_normal((BATCH, 3, 2, 3)).astype("float32")
            inputs = {"image": image, "label": rng.integers(0, CLASSES, BATCH)}
            losses.append(session.step(number, inputs, 0.1)["loss"])
        states = [value for name, value in sorted(session.replicated().items())]
        ends.append([np.array(losses), *states, tensor(session, "weight"), tensor(session, "velocity")])
    for got, expected in zip(*ends):
        close(got, expected)


def rounded(x):
    """``x`` float32 with the 11 significant bits of TF32 (Veltkamp's splitting)."""
    large = x * (2.0**13 + 1.0)
    return large - (large - x)


def test_plain_softmax_with_products_in_tf32(monkeypatch):
    """Paddle lets GPUs round the factors of float32 products to TF32. The features and rows here have so few digits
    that it changes no logit: what else goes through a product shows in the loss."""
    matmul, addmm = paddle.matmul, paddle.addmm
    monkeypatch.setattr(paddle, "matmul", lambda x, y, *a, **b: matmul(rounded(x), rounded(y), *a, **b))
    monkeypatch.setattr(paddle, "addmm", lambda c, x, y, *a, **b: addmm(c, rounded(x), rounded(y), *a, **b))
    rng = np.random.default_rng(2)
    feature, rows = (rng.integers(-127, 128, (n, EMBEDDING)).astype("float32") / 32 for n in (BATCH, CLASSES))
    label = rng.integers(0, CLASSES, BATCH)
    main, env = paddle.static.Program(), Environment(device="gpu")
    with paddle.static.program_guard(main, paddle.static.Program()):
        x = paddle.static.data("feature", [BATCH, EMBEDDING], "float32")
        y = paddle.static.data("label", [BATCH], "int64")
        w = paddle.static.data("rows", [CLASSES, EMBEDDING], "float32")
        spec = ClassifierSpec(CLASSES, EMBEDDING, Softmax())
        out = classify(x, y, GivenRows(w), StepContext(spec, Shard.of(spec, env), env))
        drows = out.row_gradients.compute(out.row_gradients.blocks.only_piece, w)
    feed = {"feature": feature, "label": label, "rows": rows}
    loss, dfeature, drows = paddle.static.Executor(paddle.CPUPlace()).run(
        main, feed=feed, fetch_list=[out.loss, out.dfeature, drows]
    )
    logits = feature.astype("float64") @ rows.T
    assert np.abs(logits).max() > 16  # large enough for TF32 to show
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = np.eye(CLASSES)[label]
    np.testing.assert_allclose(loss, [-np.log((p * own).sum(1)).mean()], rtol=1e-6)  # float32
    for got, left, right in ((dfeature, p - own, rows), (drows, (p - own).T, feature)):
        # the one factor of these products is exact, each number of the other is rounded by at most 2**-11 of itself
        bound = 2**-11 * np.abs(left) @ np.abs(right) / BATCH + 1e-6
        assert (np.abs(got - left @ right / BATCH) <= bound).all()
