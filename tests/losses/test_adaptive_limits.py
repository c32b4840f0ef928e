"""The losses with states and norms at their limits, against tests/reference/adaptive_losses.py: |cos| = 1, lengths at
the ends of float32, norms that are all the same, one class, one feature."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc import registry
from plsc.errors import ConfigError
from plsc.parallel.environment import Environment
from tests.dist import limits_cases
from tests.dist.test_adaptive_losses import LOSSES
from tests.reference import adaptive_losses as reference
from tests.reference import own_losses

paddle.enable_static()
# factors of classes have no limits
CASES = {name: case for name, case in LOSSES.items() if "class_weights" not in case[3]}
STEP = 3  # of tests.dist.limits_cases
EMBEDDING, CLASSES, SCALE = 8, 11, 16.0


def run(loss, change, count=8, compare=True):
    """(what the classifier found, the reference's loss, dfeature, drows) of one step on one rank; the first alone
    without ``compare``."""
    kind, name, options, keys = CASES[loss]
    spec = {key: value for key, value in keys.items() if not key.startswith("margin")}
    margins = {key: value for key, value in keys.items() if key not in spec}
    rng = np.random.default_rng(3)
    case = {
        "num_classes": CLASSES, "embedding_size": EMBEDDING, "scale": SCALE, "sample_ratio": 1.0,
        "model_parallel": True, "way": (None, 0, False), "loss": registry.LOSSES.find(name)(**options, **margins),
        "spec": spec,
        "weight": rng.standard_normal((CLASSES, EMBEDDING * keys.get("sub_centres", 1))).astype("float32"),
        "feature": 2.0 * rng.standard_normal((count, EMBEDDING)).astype("float32"),
        "label": rng.integers(0, CLASSES, count),
    }  # fmt: skip
    change(case)
    paddle.enable_static()
    formula = kind(SCALE, 0, **options, **keys)
    formula.begin(CLASSES)
    if not compare:
        return (limits_cases.run_case(Environment(), case),)
    expected = reference.loss_and_gradients(formula, case["feature"], case["weight"], case["label"], STEP)
    return limits_cases.run_case(Environment(), case), *expected


def edges(case):
    """On the centre and opposite to it; nothing; very long and very short."""
    own = case["weight"][case["label"]][:, :EMBEDDING]  # the first centre
    case["feature"][0], case["feature"][1] = 2.0 * own[0], -2.0 * own[1]
    case["feature"][2] = 0.0
    case["feature"][3] *= np.float32(1e17)
    case["feature"][4] *= np.float32(1e-5)


def one_class(case):
    """All features the same: the deviation of the norms is 0."""
    case["label"][:] = 4
    case["feature"][:] = case["feature"][0]


def nothing(case):
    pass


LIMITS = [(loss, change, count) for loss in CASES for change, count in ((edges, 8), (one_class, 8), (nothing, 1))]


@pytest.mark.parametrize("loss, change, count", [
    # with plus it is open which of two equal cosines gets the larger margin
    limit for limit in LIMITS if not (limit[0].endswith("plus") and limit[1] is one_class)
])  # fmt: skip
def test_limits_are_those_of_the_formula(loss, change, count):
    found, value, dfeature, drows = run(loss, change, count)
    np.testing.assert_allclose(found["loss"], [value], rtol=1e-5)
    for got, expected in ((found["dfeature"], dfeature), (found["drows"], drows)):
        # each vector against its own length: a gradient is divided by the length of the feature
        size = np.maximum(np.abs(expected).max(1, keepdims=True), 1e-3 * np.abs(expected).max(1).min())
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got / np.maximum(size, 1e-30), expected / np.maximum(size, 1e-30), rtol=0, atol=3e-5)
    if change is edges:
        assert not found["dfeature"][2].any()


def test_a_label_that_is_no_class_makes_the_loss_of_pairs_nan():
    """It has no owner; with a wrong number the run would go on."""

    def invalid(case):
        case["label"][2] = CLASSES

    found = run("uniface", invalid, compare=False)[0]
    assert np.isnan(found["loss"]).all() and np.isnan(found["dfeature"][2]).all()
    assert np.isfinite(np.delete(found["dfeature"], 2, axis=0)).all()


@pytest.mark.parametrize("loss", CASES)
def test_the_reference_has_the_gradient_of_its_loss(loss):
    """The chain rule that is written out there, against differences of the whole loss."""
    kind, _, options, keys = CASES[loss]
    options = {**options, **keys}
    rng = np.random.default_rng(5)
    feature, rows, label = 2.0 * rng.standard_normal((4, 3)), rng.standard_normal((5, 3)), np.array([0, 3, 3, 1])
    formula, again = kind(SCALE, 0, **options), kind(SCALE, 0, **options)
    formula.begin(len(rows)), again.begin(len(rows))
    found = reference.loss_and_gradients(formula, feature, rows, label, STEP)
    cosine, norm = own_losses.cosines(feature, rows)[np.arange(4), label], np.linalg.norm(feature, axis=1)
    expected = own_losses.gradients(again, feature, rows, label, again.fixed(cosine, norm, STEP))
    for got, wanted in zip(found, expected):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)
    assert formula.states == again.states


def test_label_smoothing_of_plain_softmax():
    """In dot products, which those formulas are not about."""
    rng = np.random.default_rng(2)
    feature, weight = rng.standard_normal((6, EMBEDDING)), rng.standard_normal((CLASSES, EMBEDDING + 1))
    label, smoothing = rng.integers(0, CLASSES, 6), 0.3
    case = {
        "num_classes": CLASSES, "embedding_size": EMBEDDING, "scale": SCALE, "sample_ratio": 1.0,
        "model_parallel": True, "way": (None, 0, False), "loss": registry.LOSSES.find("softmax")(),
        "spec": {"label_smoothing": smoothing}, "weight": weight.astype("float32"),
        "feature": feature.astype("float32"), "label": label,
    }  # fmt: skip
    found = limits_cases.run_case(Environment(), case)
    with_one = np.concatenate([case["feature"].astype(float), np.ones((6, 1))], axis=1)
    logits = with_one @ case["weight"].astype(float).T
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(CLASSES)[label] + smoothing / CLASSES
    dlogits = (np.exp(log_p) - wanted) / 6
    np.testing.assert_allclose(found["loss"], [-(wanted * log_p).sum() / 6], rtol=1e-6)
    np.testing.assert_allclose(found["drows"], dlogits.T @ with_one, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["dfeature"], dlogits @ case["weight"][:, :EMBEDDING], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name, options, message", [
    ("adaface", {"h": 0.0}, "h=0.0: must be above 0"),
    ("adaface", {"margin": -0.1}, "margin=-0.1: must be at least 0"),
    ("magface", {"shortest": 110.0}, "longest=110.0: must be above shortest"),
    ("magface", {"penalty_weight": -1.0}, "penalty_weight=-1.0: must be at least 0"),
    ("magface", {"largest_margin": 0.1}, "largest_margin=0.1: must be at least smallest_margin"),
    ("curricularface", {"alpha": 2.0}, "alpha=2.0: must be above 0 and at most 1"),
    ("elastic_arcface", {"sigma": -0.1}, "sigma=-0.1: must be at least 0"),
    ("uniface", {"negative_weight": 0.0}, "negative_weight=0.0: must be above 0"),
    ("uniface", {"bias_rate": -1.0}, "bias_rate=-1.0: must be at least 0"),
    ("sphereface2", {"balance": 1.0}, "balance=1.0: must be above 0 and below 1"),
    ("sphereface2", {"t": 0.5}, "t=0.5: must be at least 1"),
    ("sphereface2", {"weight": 0.0}, "weight=0.0: must be above 0"),
])  # fmt: skip
def test_options_out_of_range_are_one_line(name, options, message):
    from plsc.config import Config

    with pytest.raises(ConfigError, match=message) as caught:
        Config.from_dict({"classifier": {"loss_type": name, "loss_options": options}}).loss()
    assert "\n" not in str(caught.value) and f"loss {name!r}" in str(caught.value)


def test_a_filter_needs_cosines():
    from plsc.config import Config

    with pytest.raises(ConfigError, match="classifier.filter_above=0.4: is a limit of cosines, and "):
        Config.from_dict({"classifier": {"loss_type": "softmax", "filter_above": 0.4}})
