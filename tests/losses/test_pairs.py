"""Pair losses: where the bias starts, sums of many small terms, and what a pair loss may not be."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from plsc.classifiers import ClassifierSpec
from plsc.classifiers.checked_loss import CheckedLoss
from plsc.classifiers.pair_terms import PairTerms, sigmoid, softplus
from plsc.classifiers.pairs import PairRows
from plsc.config import Config
from plsc.errors import ConfigError
from plsc.losses import PairLoss, register_loss
from plsc.losses.sphereface2 import SphereFace2
from plsc.losses.uniface import UniFace
from plsc.parallel.environment import Environment
from plsc.registry import LOSSES
from plsc.rows.blocks import RowBlocks
from tests.registries import forget_afterwards

paddle.enable_static()


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    LOSSES.names()
    forget_afterwards(monkeypatch, LOSSES)


@pytest.mark.parametrize("scale, margin, balance, num_classes", [
    (40.0, 0.4, 0.7, 10_000), (64.0, 0.0, 0.5, 93_431), (16.0, 0.4, 0.7, 1_000_000), (30.0, 0.3, 0.9, 3),
    (16.0, 0.4, 0.5, 2), (64.0, 0.4, 0.99, 2),
])  # fmt: skip
def test_sphereface2_begins_in_balance(scale, margin, balance, num_classes):
    """The two sides have gradients by the bias of equal size where all cosines are 0."""
    loss = SphereFace2(margin, balance)
    bias, (positive, negative) = loss.initial_bias(scale, num_classes), loss.weights(scale)
    own, other = (scale * (2 * 0.5**loss.t - 1 + sign * margin) + bias for sign in (-1, 1))
    # log(sigma(x)) = -log(1 + exp(-x))
    sides = math.log(positive) - np.logaddexp(0, own), math.log(negative * (num_classes - 1)) - np.logaddexp(0, -other)
    assert sides[0] == pytest.approx(sides[1], abs=1e-9)


@pytest.mark.parametrize("loss", [SphereFace2(), SphereFace2(balance=0.5), UniFace()])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 2**31])
def test_the_first_bias_is_finite(loss, num_classes):
    for scale in (1e-3, 64.0, 1e4):
        assert math.isfinite(loss.initial_bias(scale, num_classes))


def test_the_classes_of_a_step_decide_where_uniface_begins():
    program = build("uniface", sample_ratio=0.3, num_classes=100)
    assert started(program) == pytest.approx(-math.log(10 * 30), rel=1e-6)


def build(name, **classifier):
    from plsc.config.user_objects import UserObjects
    from plsc.engine.program.build import build_train
    from tests.dist.training_cases import Linear

    config = Config.from_dict({"classifier": {"loss_type": name, **classifier}, "model": {"image_shape": [3, 2, 3]},
                               "train_batch_size": 6})  # fmt: skip
    return build_train(config, UserObjects(model=Linear(5)), Environment(), seed=7)


def started(program) -> float:
    scope = paddle.static.Scope()
    with paddle.static.scope_guard(scope):
        paddle.static.Executor(paddle.CPUPlace()).run(program.startup)
    return float(np.array(scope.find_var("classifier.loss.bias").get_tensor()).item())


def test_sigmoid_and_softplus_keep_small_terms():
    x = np.linspace(-85.0, 85.0, 3001).astype("float32")
    main = paddle.static.Program()
    with paddle.static.program_guard(main, paddle.static.Program()):
        value = paddle.static.data("x", [len(x)], "float32")
        fetched = [sigmoid(value), softplus(value)]
    found = paddle.static.Executor(paddle.CPUPlace()).run(main, feed={"x": x}, fetch_list=fetched)
    exact = x.astype("float64")
    # a few roundings of 6e-8 each
    np.testing.assert_allclose(found[0], np.exp(-np.logaddexp(0, -exact)), rtol=5e-7)
    np.testing.assert_allclose(found[1], np.logaddexp(0, exact), rtol=5e-7)


def test_a_large_term_does_not_swallow_many_small_ones():
    """One logit of 3 before 99,999 of -17, in small blocks: of a float32 sum over the blocks, each addition would be
    off by a tenth of what it adds."""
    count, block_rows = 100_000, 16
    loss, bias = UniFace(), -17.0
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        values = paddle.static.data("cosine", [count, 1], "float32")
        loss.initial_bias = lambda scale, num_classes: bias
        rows = PairRows(PairTerms(CheckedLoss(loss), 1.0, count))

        def body(block, *sums):
            part = paddle.gather(values, paddle.arange(block.first, block.end))
            return rows.add(block, part, part, None, list(sums))[0]

        sums = RowBlocks(None, count, block_rows).for_each(body, rows.start(paddle.zeros([1])))
    cosine = np.zeros([count, 1], "float32")
    cosine[0] = 20.0
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(startup)
    found = executor.run(main, feed={"cosine": cosine}, fetch_list=sums)
    logit = cosine.astype("float64") + bias
    # the additions within a block, of which each rounds by 6e-8; what other blocks add is not rounded
    rounding = block_rows * 2.0**-24
    np.testing.assert_allclose(found[0], [np.logaddexp(0, logit).sum()], rtol=rounding)
    np.testing.assert_allclose(found[1], [np.exp(-np.logaddexp(0, -logit)).sum()], rtol=rounding)


def mine(**body):
    body = {"target": lambda self, batch: (batch.cosine, paddle.ones_like(batch.cosine)),
            "initial_bias": lambda self, scale, num_classes: -3.0, **body}  # fmt: skip
    return register_loss("mine")(type("Mine", (PairLoss,), body))


@pytest.mark.parametrize("body, message", [
    ({"initial_bias": PairLoss.initial_bias}, "has no method initial_bias.self, scale, num_classes."),
    ({"normalised": False}, "is a PairLoss, which judges cosines: it must be normalised"),
    ({"weights": lambda self: (1.0, 1.0)}, r"Mine.weights takes \(self\); it must take \(self, scale\)"),
])  # fmt: skip
def test_a_pair_loss_that_is_none_is_not_registered(body, message):
    with pytest.raises(ConfigError, match=message):
        mine(**body)


@pytest.mark.parametrize("body, message", [
    ({"weights": lambda self, scale: (1.0, 0.0)}, r"weights returned \(1.0, 0.0\); it must return \(positive, neg"),
    ({"weights": lambda self, scale: 1.0}, r"weights returned 1.0; it must return"),
    ({"initial_bias": lambda self, scale, n: 1.0 / (n - 11)}, "initial_bias raised ZeroDivisionError"),
    ({"initial_bias": lambda self, scale, n: math.inf}, "initial_bias returned inf; it must return a finite number"),
    ({"bias_rate": -1.0}, "bias_rate is -1.0; it must be a finite number of at least 0"),
    ({"states": lambda self: {"bias": 0.0}, "update": lambda self, batch: batch.states}, "states returned {'bias': "),
])  # fmt: skip
def test_what_a_method_does_wrong_is_one_line(body, message):
    mine(**body)
    with pytest.raises(ConfigError, match=f"loss Mine: {message}") as caught:
        build("mine", num_classes=11)
    assert "\n" not in str(caught.value)


def test_pairs_are_never_left_to_the_kernel_of_the_softmax():
    env, loss = Environment(device="gpu"), mine(kernel_margins=(1.0, 0.0, 0.0))()
    spec = ClassifierSpec(11, loss=loss)
    assert not spec.uses_kernel(env) and "Mine is more than three margins" in spec.without_kernel(env)


def test_pairs_have_no_distribution_to_smooth():
    with pytest.raises(ConfigError, match="label_smoothing=0.1: is a part of the target distribution, and .*'uniface'"):
        Config.from_dict({"classifier": {"loss_type": "uniface", "label_smoothing": 0.1}})


def test_a_bias_that_is_not_trained_stays():
    program = build("uniface", num_classes=11, loss_options={"bias_rate": 0.0})
    assert "classifier.loss.bias" not in program.replicated
