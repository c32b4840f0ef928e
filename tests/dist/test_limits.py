"""Samples that are learnt, angles next to 0 and 180 degrees, lengths at the ends of float32: on 1 and 3 real ranks, in
every way the classifier goes over its rows, each sample and each row held against itself in NumPy float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.dist import ranks
from tests.reference.margin_softmax import margin_softmax, target_cosine

ARCFACE, COSFACE, COMBINED, SOFTMAX = (1.0, 0.5, 0.0), (1.0, 0.0, 0.35), (1.2, 0.1, 0.1), None
EMBEDDING, BATCH = 32, 24  # divisible by 1, 2, 3
# (rows of a block, blocks that are pieces of one, rows move where their gradient is made)
WHOLE, LOOP, LOOP_MOVED, PIECES = (None, 0, False), (20, 0, False), (20, 0, True), (20, 40, True)


def make_case(name, margins, angle, scale=64.0, opposite=False, way=WHOLE, model_parallel=True, sample_ratio=1.0,
              classes=203, change=None):  # fmt: skip
    """Features at ``angle`` (radians; one number, or one for each) to their centres, or to the opposite of them."""
    rng = np.random.default_rng(7)
    weight = rng.standard_normal((classes, EMBEDDING))
    label = rng.permutation(classes)[:BATCH]
    own = weight[label] / np.linalg.norm(weight[label], axis=1, keepdims=True)
    side = rng.standard_normal((BATCH, EMBEDDING))
    side -= (side * own).sum(1, keepdims=True) * own
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angle = np.broadcast_to(angle, BATCH)[:, None]
    feature = 5.0 * (np.cos(angle) * (-own if opposite else own) + np.sin(angle) * side)
    if margins is None:
        weight = np.concatenate([weight, 0.1 * rng.standard_normal((classes, 1))], axis=1)
    case = {
        "name": name, "num_classes": classes, "embedding_size": EMBEDDING, "margins": margins, "scale": scale,
        "sample_ratio": sample_ratio, "model_parallel": model_parallel, "way": way,
        "feature": feature.astype("float32"), "weight": weight.astype("float32"), "label": label,
    }  # fmt: skip
    if change:
        change(case)
    return case


def losses_of(case, kept=slice(None)):
    """Loss and gradients of each sample alone and of each row."""
    weight = case["weight"].astype(np.float64)[kept]
    number = np.arange(case["num_classes"])[kept]
    label = np.searchsorted(number, case["label"])
    centres, bias = (weight[:, :EMBEDDING], weight[:, EMBEDDING]) if case["margins"] is None else (weight, None)
    loss, dfeature, drows, dbias = margin_softmax(case["feature"], centres, label, case["margins"], case["scale"], bias)
    drows = drows if dbias is None else np.concatenate([drows, dbias[:, None]], axis=1)
    dweight = np.zeros(case["weight"].shape)
    dweight[number] = drows
    return loss, dfeature, dweight


SHARED, SAMPLED = {"model_parallel": False}, {"sample_ratio": 0.5}
LEARNT = [
    make_case(f"{name} {angle} {kind}", margins, angle, scale, way=way, **more)
    for name, margins, angle, scale, kind, way, more in (
        ("arcface", ARCFACE, 0.9, 64.0, "whole", WHOLE, {}),
        ("arcface", ARCFACE, 0.5, 64.0, "whole", WHOLE, {}),
        ("arcface", ARCFACE, 0.5, 64.0, "loop", LOOP, {}),
        ("arcface", ARCFACE, 0.5, 64.0, "loop, moved", LOOP_MOVED, {}),
        ("arcface", ARCFACE, 0.5, 64.0, "pieces", PIECES, SAMPLED),
        ("arcface", ARCFACE, 0.5, 64.0, "data parallel", LOOP, SHARED),
        ("arcface", ARCFACE, 0.35, 64.0, "whole", WHOLE, {}),
        ("cosface", COSFACE, 0.4, 64.0, "pieces", PIECES, SAMPLED),
        ("combined", COMBINED, 0.4, 64.0, "whole", WHOLE, {}),
        ("softmax", SOFTMAX, 0.5, 1.0, "whole", WHOLE, {}),
        ("softmax", SOFTMAX, 0.5, 1.0, "loop, moved", LOOP_MOVED, {}),
    )
]
BESIDE = [2e-2, 1.4e-3, 1e-4]  # the cosines 0.9998, 1 - 1e-6, 1 - 5e-9
NEAR = [
    make_case(f"{'opposite' if opposite else 'near'} {angle} {kind}", margins, angle, 4.0, opposite, way)
    for opposite in (False, True)
    for kind, margins, way, angles in (
        ("whole", ARCFACE, WHOLE, BESIDE),
        ("loop", ARCFACE, LOOP_MOVED, BESIDE[1:2]),
        ("combined", COMBINED, WHOLE, BESIDE[1:2]),
    )
    for angle in angles
]


def twice_the_centre(case):
    case["feature"] = 2.0 * case["weight"][case["label"]] * np.float32(1 - 2 * ("opposite" in case["name"]))


ON_IT = [
    make_case(name, ARCFACE, 1.0, 4.0, change=twice_the_centre) for name in ("on the centre", "opposite of the centre")
]


def long_feature(case):
    case["feature"][3] *= np.float32(1e20)


def long_centre(case):
    case["weight"][case["label"][3]] *= np.float32(1e20)


def long_other(case):
    (other, *_) = np.setdiff1d(np.arange(case["num_classes"]), case["label"])
    case["weight"][other] *= np.float32(1e20)


def all_long(case):
    case["feature"] *= np.float32(1e20)


TOO_LONG = [
    make_case(f"{change.__name__} {kind}", ARCFACE, 0.5, way=way, change=change)
    for change, kind, way in (
        (long_feature, "whole", WHOLE), (long_centre, "whole", WHOLE), (long_other, "whole", WHOLE),
        (all_long, "whole", WHOLE), (long_centre, "loop", LOOP_MOVED),
    )
]  # fmt: skip


def longest(case):
    case["feature"] *= np.float32(1e12)
    case["weight"] *= np.float32(1e12)


def shortest(case):
    case["feature"] *= np.float32(1e-5)
    case["weight"] *= np.float32(1e-5)


def nothing(case):
    case["feature"][::3] *= np.float32(1e-30)
    case["weight"][case["label"][1]] *= np.float32(1e-30)


LENGTHS = [make_case(change.__name__, ARCFACE, 0.5, change=change) for change in (longest, shortest)]
NO_DIRECTION = make_case("nothing", ARCFACE, 0.5, change=nothing, way=LOOP_MOVED)


def no_class(case):
    case["label"][5] = case["num_classes"]


NO_CLASS = [
    make_case("no class", ARCFACE, 0.5, change=no_class),
    make_case("no class, softmax", SOFTMAX, 0.5, way=LOOP_MOVED, change=no_class),
    make_case("no class, sampled", COSFACE, 0.5, way=PIECES, change=no_class, **SAMPLED),
    make_case("no class, data parallel", ARCFACE, 0.5, way=LOOP, change=no_class, **SHARED),
]
CASES = LEARNT + NEAR + ON_IT + TOO_LONG + LENGTHS + [NO_DIRECTION] + NO_CLASS


@pytest.fixture(scope="module", params=[1, 3])
def outcome(request, tmp_path_factory):
    cwd = tmp_path_factory.mktemp(f"ranks{request.param}")
    parts = ranks.run("tests.dist.limits_cases:run_cases", request.param, cwd, CASES)
    return {case["name"]: (case, [part[number] for part in parts]) for number, case in enumerate(CASES)}


def of(cases):
    return pytest.mark.parametrize("name", [case["name"] for case in cases])


def whole(case, parts):
    """(loss of each rank, dfeature, drows) put together."""
    dfeature = np.concatenate([part["dfeature"] for part in parts])
    rows = [part["drows"] for part in parts]
    drows = np.concatenate(rows) if case["model_parallel"] else rows[0]
    return [part["loss"] for part in parts], dfeature, drows


def off(got, expected):
    """Of each row the length of the difference, against its own."""
    return np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)


def rows_that_took_part(case, drows):
    if case["sample_ratio"] == 1.0:
        return np.arange(case["num_classes"])
    return np.union1d(np.flatnonzero(np.abs(drows).sum(1)), case["label"])


@of(LEARNT)
def test_a_learnt_sample_keeps_its_gradient(outcome, name):
    case, parts = outcome[name]
    losses, dfeature, drows = whole(case, parts)
    kept = rows_that_took_part(case, drows)
    loss, expected_feature, expected_rows = losses_of(case, kept)
    # a cosine is off by 6e-8 or two of them, times the scale of 64; a logit of 30 by another 2e-6: both are the
    # relative error of exp(logit), and so of the loss and of all gradients of a sample
    np.testing.assert_allclose(losses, [[loss]] * len(parts), rtol=1.5e-5)
    of_features, of_rows = off(dfeature, expected_feature), off(drows[kept], expected_rows[kept])
    assert np.median(of_features) < 1.5e-5 and of_features.max() < 6e-5
    assert np.median(of_rows) < 1.5e-5 and of_rows.max() < 1e-4


def test_the_learnt_samples_are_learnt():
    """What the cases are about: of most samples the loss is below 1e-2, of many below 1e-5."""
    each = []
    for case in LEARNT[1:]:
        for row in range(BATCH):
            alone = {**case, "feature": case["feature"][row : row + 1], "label": case["label"][row : row + 1]}
            each.append(losses_of(alone)[0])
    assert np.median(each) < 3e-3 and np.mean(np.array(each) < 1e-5) > 0.1 and losses_of(LEARNT[0])[0] > 10.0


@of(NEAR)
def test_an_angle_next_to_0_or_180_degrees_has_its_own_slope(outcome, name):
    case, parts = outcome[name]
    losses, dfeature, drows = whole(case, parts)
    loss, expected_feature, expected_rows = losses_of(case)
    np.testing.assert_allclose(losses, [[loss]] * len(parts), rtol=1e-6)
    # both parts of the gradient are sums of a few float32 numbers; nothing of it is a difference of large ones
    assert off(dfeature, expected_feature).max() < 2e-6
    assert off(drows, expected_rows).max() < 3e-6


@of(ON_IT)
def test_on_the_centre_and_opposite_of_it(outcome, name):
    case, parts = outcome[name]
    losses, dfeature, drows = whole(case, parts)
    loss, expected_feature, expected_rows = losses_of(case)
    assert np.isfinite(drows).all()
    np.testing.assert_allclose(losses, [[loss]] * len(parts), rtol=1e-6)
    # the own class has no direction to give: what is left are the other classes
    for got, expected in ((dfeature, expected_feature), (drows, expected_rows)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_limit_of_the_slope_is_continuous():
    """The reference, which the classifier is held against: as the angle goes to 0 there is no jump."""
    angles = np.geomspace(1e-7, 1e-3, 400)
    for sign in (1.0, -1.0):
        _, slope = target_cosine(sign * np.cos(angles), ARCFACE)
        pull = slope * angles  # the length of the own class's part of the gradient
        assert np.abs(np.diff(pull)).max() < 0.06 and pull[0] < 1e-3


@of(TOO_LONG)
def test_a_vector_too_long_for_float32_makes_the_loss_no_number(outcome, name):
    _, parts = outcome[name]
    assert all(np.isnan(part["loss"]).all() for part in parts)


@of(LENGTHS)
def test_long_and_short_vectors_count_by_their_direction(outcome, name):
    case, parts = outcome[name]
    losses, dfeature, drows = whole(case, parts)
    loss, expected_feature, expected_rows = losses_of(case)
    np.testing.assert_allclose(losses, [[loss]] * len(parts), rtol=1.5e-5)
    assert off(dfeature.astype(np.float64), expected_feature).max() < 6e-5
    assert off(drows.astype(np.float64), expected_rows).max() < 1e-4


def test_without_a_direction_there_is_no_gradient(outcome):
    case, parts = outcome[NO_DIRECTION["name"]]
    losses, dfeature, drows = whole(case, parts)
    loss, expected_feature, expected_rows = losses_of(case)
    np.testing.assert_allclose(losses, [[loss]] * len(parts), rtol=1.5e-5)
    assert not dfeature[::3].any() and not drows[case["label"][1]].any()
    for got, expected in ((dfeature, expected_feature), (drows, expected_rows)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@of(NO_CLASS)
def test_a_label_that_is_no_class_moves_nothing_to_a_finite_place(outcome, name):
    case, parts = outcome[name]
    _, dfeature, drows = whole(case, parts)
    assert all(np.isnan(part["loss"]).all() for part in parts) and np.isnan(dfeature[5]).all()
    taking_part = np.abs(drows).sum(1) != 0  # NaN is not 0
    assert taking_part.sum() >= int(case["sample_ratio"] * case["num_classes"]) - len(parts)
    assert np.isnan(drows[taking_part]).all()
