"""LargeScaleClassifier on 1 to 4 real Gloo ranks against the NumPy reference: design.md, what must always hold."""

from __future__ import annotations

import numpy as np
import pytest

from tests.dist import ranks
from tests.dist.cross import Cross, by_name
from tests.reference.margin_softmax import margin_softmax

ARCFACE, COSFACE, SPHEREFACE = (1.0, 0.5, 0.0), (1.0, 0.0, 0.35), (1.35, 0.0, 0.0)
COMBINED, PAST_PI, NONE = (0.9, 0.4, 0.15), (1.0, 2.5, 0.0), (1.0, 0.0, 0.0)
GLOBAL_BATCH = 12  # divisible by 1, 2, 3, 4


def make_case(name, num_classes=29, margins=ARCFACE, sample_ratio=1.0, scale=64.0, change=None, **extra):
    rng = np.random.default_rng(sum(map(ord, name)))
    case = {
        "name": name,
        "num_classes": num_classes,
        "embedding_size": 16,
        "margins": margins,
        "scale": scale,
        "sample_ratio": sample_ratio,
        "steps": 1,
        "feature": rng.standard_normal((GLOBAL_BATCH, 16)).astype("float32"),
        "weight": rng.standard_normal((num_classes, 16)).astype("float32"),
        "label": rng.integers(0, num_classes, GLOBAL_BATCH),
        **extra,
    }
    if change:
        change(case)
    return case


def near_one(case):
    """Features within 1e-3 rad of their centre, one exactly on it and one exactly opposite."""
    noise = np.random.default_rng(5).standard_normal(case["feature"].shape)
    case["feature"] = (3.0 * case["weight"][case["label"]] + 1e-3 * noise).astype("float32")
    case["feature"][0] = case["weight"][case["label"][0]]
    case["feature"][1] = -2.0 * case["weight"][case["label"][1]]


def at_sixty_degrees(case):
    """Features at 60 degrees to their centres: with a margin of 4 * angle the logit of a right angle is far above."""
    own = case["weight"][case["label"]].astype("float64")
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    side = case["feature"] - (case["feature"] * own).sum(1, keepdims=True) * own
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    case["feature"] = (0.5 * own + np.sqrt(0.75) * side).astype("float32")


def zero_features(case):
    case["feature"][::5] = 0.0


def lonely_ranks(case):
    """All labels are of class 0 or 1: on several ranks all but one own none of them."""
    case["label"] = case["label"] % 2


CASES = [
    make_case("arcface even", num_classes=24),
    make_case("arcface uneven"),
    make_case("cosface", margins=COSFACE),
    make_case("sphereface", margins=SPHEREFACE),
    make_case("combined", margins=COMBINED),
    make_case("no margin", margins=NONE, scale=8.0),
    make_case("past pi", margins=PAST_PI, scale=8.0),
    make_case("near one", change=near_one),
    # the own logit more than 88 above all others: exp of the difference is no float32
    make_case("far above all others", margins=NONE, scale=300.0, change=near_one),
    # on a rank that does not hold the own class, exp of the logit of cosine 0 is no float32
    make_case("margin of four angles", margins=(4.0, 0.0, 0.0), scale=200.0, change=at_sixty_degrees),
    make_case("zero features", change=zero_features),
    make_case("lonely ranks", change=lonely_ranks),
    make_case("unknown batch", static_batch=-1),
    make_case("sampled", num_classes=203, sample_ratio=0.25, steps=3),
    make_case("sampled cosface", num_classes=101, sample_ratio=0.5, margins=COSFACE, steps=2),
    make_case("sampled few", num_classes=4000, sample_ratio=0.02, steps=2),
    make_case("sampled lonely", num_classes=203, sample_ratio=0.2, change=lonely_ranks, steps=2),
    make_case("more positives than num_sample", num_classes=29, sample_ratio=0.05, steps=2),
    make_case("sampled zero features", num_classes=203, sample_ratio=0.25, change=zero_features),
    make_case("sampled unknown batch", num_classes=203, sample_ratio=0.25, static_batch=-1),
]


# On 3 ranks, where shards are uneven and no power of two, one of each kind; on 1, 2 and 4 all.
ON_THREE = (
    "arcface even", "arcface uneven", "combined", "past pi", "near one", "margin of four angles", "zero features",
    "lonely ranks", "sampled", "sampled few", "sampled lonely", "more positives than num_sample",
)  # fmt: skip
BY_NAME = by_name(CASES)
CROSS = Cross(
    "tests.dist.classifier_cases:run_cases", BY_NAME,
    {1: tuple(BY_NAME), 2: tuple(BY_NAME), 3: ON_THREE, 4: tuple(BY_NAME)},
)  # fmt: skip
outcome = CROSS.outcome()


def reference(case, kept):
    """Loss and gradients with the classes ``kept`` only; the gradient of the other rows is 0."""
    number = {c: i for i, c in enumerate(kept)}
    label = np.array([number[c] for c in case["label"]])
    loss, dfeature, dkept, _ = margin_softmax(
        case["feature"], case["weight"][kept], label, case["margins"], case["scale"]
    )
    dweight = np.zeros(case["weight"].shape)
    dweight[kept] = dkept
    return loss, dfeature, dweight


def tolerance(case):
    # float32: a cosine is off by 1e-7 and is multiplied by the scale, of 64 at least
    return 2e-5 * max(1.0, case["scale"] / 64.0)


def no_class(case):
    case["label"][3] = case["num_classes"]


def negative(case):
    case["label"][5] = -1


WRONG_LABELS = [
    make_case("beyond the last class", change=no_class),
    make_case("negative", change=negative),
    make_case("negative, sampled", num_classes=203, sample_ratio=0.25, change=negative),
]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_label_that_is_no_class_makes_the_loss_nan_on_every_rank(world_size, tmp_path):
    parts = ranks.run("tests.dist.classifier_cases:run_cases", world_size, tmp_path, WRONG_LABELS)
    assert all(np.isnan(result["loss"]).all() for part in parts for result in part)


@CROSS.each()
def test_loss_and_gradients(outcome, world_size, name):
    check_loss_and_gradients(BY_NAME[name], [rank[name] for rank in outcome(world_size)])


def check_loss_and_gradients(case, parts):
    """What the ranks (see classifier_cases.run_case) return, against the reference."""
    for step in range(case["steps"]):
        dweight = np.concatenate([part["dweight"][step] for part in parts])
        dfeature = np.concatenate([part["dfeature"][step] for part in parts])
        kept = np.flatnonzero(np.abs(dweight).sum(1)) if case["sample_ratio"] < 1.0 else np.arange(len(dweight))
        if case["sample_ratio"] < 1.0:
            kept = np.union1d(kept, case["label"])
        loss, expected_dfeature, expected_dweight = reference(case, kept)
        for part in parts:
            np.testing.assert_allclose(part["loss"][step], [loss], rtol=2e-6)
        for got, expected in ((dfeature, expected_dfeature), (dweight, expected_dweight)):
            assert np.isfinite(got).all()
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance(case) * np.abs(expected).max())


@CROSS.each(lambda case: case["sample_ratio"] < 1.0 and "zero" not in case["name"])
def test_sample_holds_the_positives_and_has_its_size(outcome, world_size, name):
    case = BY_NAME[name]
    for part in (rank[name] for rank in outcome(world_size)):
        end = part["first"] + part["dweight"].shape[1]
        positives = np.unique(case["label"][(case["label"] >= part["first"]) & (case["label"] < end)]) - part["first"]
        samples = [np.flatnonzero(np.abs(dweight).sum(1)) for dweight in part["dweight"]]
        for sample in samples:
            assert np.isin(positives, sample).all()
            assert len(sample) == max(part["num_sample"], len(positives))
        if len(samples) > 1 and len(positives) < part["num_sample"]:
            assert any(len(a) != len(b) or (a != b).any() for a, b in zip(samples, samples[1:])), "never redrawn"


@pytest.mark.parametrize("sample_ratio", [1.0, 0.3])
def test_minimize_of_a_users_optimizer_moves_by_the_true_gradients(tmp_path, sample_ratio):
    rng = np.random.default_rng(2)
    case = {
        "num_classes": 31,
        "sample_ratio": sample_ratio,
        "image": rng.standard_normal((12, 8)).astype("float32"),
        "net": rng.standard_normal((8, 16)).astype("float32"),
        "label": rng.integers(0, 31, (12, 1)),
    }
    check_minimized(case, ranks.run("tests.dist.classifier_cases:minimize", 2, tmp_path, case))


def check_minimized(case, parts):
    """What the ranks (see classifier_cases.minimize) return, against the reference."""
    sample_ratio = case["sample_ratio"]
    before, after = (np.concatenate([part[name] for part in parts]) for name in ("before", "after"))
    moved = (before - after) / 0.1
    kept = np.arange(31) if sample_ratio == 1.0 else np.union1d(np.flatnonzero(np.abs(moved).sum(1)), case["label"])
    assert sample_ratio == 1.0 or len(kept) < 20
    feature = case["image"].astype(np.float64) @ case["net"]
    label = np.searchsorted(kept, case["label"][:, 0])
    loss, dfeature, dkept, _ = margin_softmax(feature, before[kept], label, ARCFACE, 64.0)
    for part in parts:
        np.testing.assert_allclose(part["loss"], [loss], rtol=2e-6)
    np.testing.assert_allclose(moved[kept], dkept, rtol=0, atol=2e-5 * np.abs(dkept).max())
    # each rank moved its copy of the net by its own part of the gradient, to be summed by the caller
    dnet = sum(case["net"] - part["net"] for part in parts) / 0.1
    expected = case["image"].T @ dfeature
    np.testing.assert_allclose(dnet, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
