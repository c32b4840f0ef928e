"""Several centres per class on 1 to 4 real ranks, and in the program of GPUs, against NumPy float64: steps in every way
the classifier goes over its rows, and the limits. Other losses with several centres: test_adaptive_losses.py."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from plsc.backend import static
from tests.dist import ranks
from tests.dist import test_limits as limits
from tests.dist.cross import on_ranks
from tests.dist.test_gpu_training import each
from tests.dist.test_training_step import MICRO_BATCHES, check_training, make_case
from tests.kernels.library import library
from tests.reference import optimizers
from tests.reference.margin_softmax import margin_softmax

THREE = {"sub_centres": 3}
SAMPLED = {"sample_ratio": 0.2, **THREE}
ADAM = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-3}
LOOPS, PIECES = {"block_rows": 15, "few_blocks": 0}, {"block_rows": 15, "few_blocks": 40}  # of 5 classes each
CASES = [
    make_case("uneven", steps=20, classifier=THREE, config={"calc_acc": True}),
    make_case("even cosface", num_classes=24, classifier={"loss_type": "cosface", "sub_centres": 2}),
    make_case("loops", classifier=THREE, **LOOPS),
    make_case("loops clipped", classifier=THREE, config={"grad_clip_norm": 0.05, "calc_acc": True}, **LOOPS),
    make_case("sampled", num_classes=203, steps=12, classifier=SAMPLED),
    make_case("sampled, half hard", num_classes=203, steps=12, classifier={"hard_negative_share": 0.5, **SAMPLED}),
    make_case("sampled, accumulated", num_classes=203, classifier=SAMPLED, micro_batches=MICRO_BATCHES),
    make_case("sampled pieces", num_classes=203, classifier=SAMPLED, **PIECES),
    make_case("sampled pieces clipped", num_classes=203, classifier=SAMPLED, config={"grad_clip_norm": 0.05}, **PIECES),
    make_case("sampled loops, not compiled", num_classes=203, classifier={**SAMPLED, "compiled": False}, **LOOPS),
    make_case("more positives than places", num_classes=203, classifier={"sample_ratio": 0.02, **THREE}),
    make_case("data parallel", classifier={"model_parallel": False, **THREE}),
    make_case("sampled data parallel", num_classes=203, classifier={"model_parallel": False, **SAMPLED}, **LOOPS),
    make_case("own optimizer", optimizer="momentum", rates=[0.2] * 6, classifier=THREE),
    make_case("own rate sampled", num_classes=203, lr_factor=3.0, classifier=SAMPLED),
    make_case("float16 sampled", num_classes=203, classifier={"storage": "float16", **SAMPLED}),
    make_case("adamw sampled", num_classes=203, classifier=SAMPLED,
              config={"optimizer": {"name": "adamw", "options": ADAM}}),
]  # fmt: skip
HALF = {"mixed_precision": {"enabled": True, "init_loss_scaling": 1024.0}}
GPU_CASES = [
    make_case("gpu", classifier=THREE, config={"calc_acc": True}),
    make_case("gpu sampled clipped", num_classes=203, classifier=SAMPLED, config={"grad_clip_norm": 0.05}),
    make_case("gpu accumulated", num_classes=203, classifier=SAMPLED, micro_batches=MICRO_BATCHES, bucket_bytes=1),
    make_case("gpu data parallel", classifier={"model_parallel": False, **THREE}),
    make_case("gpu loss scaling sampled", num_classes=203, classifier=SAMPLED, config=HALF),
]
FEW = ("uneven", "loops clipped", "sampled", "sampled pieces", "sampled data parallel")
ON = {2: FEW} if not static.is_pir() else {
    1: FEW[:4], 2: tuple(case["name"] for case in CASES), 3: FEW,
    4: ("uneven", "even cosface", "sampled pieces clipped"),
}  # fmt: skip


def check(case, parts):
    optimizer = case["config"].get("optimizer")
    if optimizer is None:
        check_training(case, parts)
    else:  # 8 times, as in test_optimizers.py
        check_training(case, parts, optimizers.AdamW(**optimizer["options"]), 8.0)


@pytest.mark.parametrize("world_size", [on_ranks(size) for size in ON])
def test_steps_are_those_of_the_reference(tmp_path, world_size):
    cases = [case for case in CASES if case["name"] in ON[world_size]]
    assert len(cases) == len(ON[world_size])
    parts = ranks.run("tests.dist.training_cases:run_cases", world_size, tmp_path, cases)
    each([(case, [part[number] for part in parts]) for number, case in enumerate(cases)], check)


@pytest.mark.parametrize("world_size", [2, *(on_ranks(size) for size in (3, 4))])
def test_steps_of_the_program_of_gpus(tmp_path, world_size):
    cases = GPU_CASES if world_size == 2 else GPU_CASES[:2]
    found = ranks.run("tests.dist.gpu_cases:run_all", world_size, tmp_path, (library(), {"training": cases}))
    each([(case, [part["training"][number] for part in found]) for number, case in enumerate(cases)], check)


# --- limits: two centres, of which that of test_limits.make_case is the second ---

EMBEDDING = limits.EMBEDDING


def limit_case(name, change=None, **options):
    def both(case):
        first = np.random.default_rng(8).standard_normal(case["weight"].shape).astype("float32")
        case["weight"] = np.concatenate([first, case["weight"]], axis=1)
        case["spec"] = {"sub_centres": 2}
        if change:
            change(case)

    return limits.make_case(name, limits.ARCFACE, options.pop("angle", 0.5), change=both, **options)


def on_the_second_centre(case):
    case["feature"] = 2.0 * case["weight"][case["label"], EMBEDDING:]


def equal_centres(case):
    case["weight"][:, :EMBEDDING] = case["weight"][:, EMBEDDING:]


def one_class(case):
    case["label"][:] = 7


def no_first_centre(case):
    case["weight"][:, :EMBEDDING] *= np.float32(1e-30)


LIMITS = [
    limit_case("learnt"), limit_case("learnt, loops", way=limits.LOOP_MOVED),
    limit_case("learnt, pieces", way=limits.PIECES, **limits.SAMPLED),
    limit_case("on the second centre", on_the_second_centre, scale=4.0),
    limit_case("equal centres", equal_centres, angle=0.9), limit_case("one class", one_class, way=limits.LOOP),
    limit_case("no first centre", no_first_centre, way=limits.LOOP_MOVED),
]  # fmt: skip


@functools.cache
def reference(number, kept):
    case, kept = LIMITS[number], np.array(kept)
    label = np.searchsorted(kept, case["label"])
    loss, dfeature, dkept, _ = margin_softmax(
        case["feature"], case["weight"][kept], label, case["margins"], case["scale"]
    )
    drows = np.zeros(case["weight"].shape)
    drows[kept] = dkept
    return loss, dfeature, drows


@pytest.mark.parametrize("world_size", [1, on_ranks(3)])
def test_at_the_limits(tmp_path, world_size):
    parts = ranks.run("tests.dist.limits_cases:run_cases", world_size, tmp_path, LIMITS)

    def check_limit(case, of_ranks):
        losses, dfeature, drows = limits.whole(case, of_ranks)
        kept = limits.rows_that_took_part(case, drows)
        loss, expected_feature, expected_rows = reference(LIMITS.index(case), tuple(kept))
        # the tolerances of test_limits.py: errors of 6e-8 in a cosine, times the scale of 64
        np.testing.assert_allclose(losses, [[loss]] * len(of_ranks), rtol=1.5e-5)
        np.testing.assert_allclose(dfeature, expected_feature, rtol=0, atol=6e-5 * np.abs(expected_feature).max())
        if case["name"] == "equal centres":  # rounding decides which of them; their sum is the same
            drows, expected_rows = (rows.reshape(-1, 2, EMBEDDING).sum(1) for rows in (drows, expected_rows))
        np.testing.assert_allclose(drows, expected_rows, rtol=0, atol=1e-4 * np.abs(expected_rows).max())

    each([(case, [part[number] for part in parts]) for number, case in enumerate(LIMITS)], check_limit)


def test_only_the_nearest_centre_has_a_gradient_and_it_is_that_of_the_loss():
    """The reference against finite differences of its own loss."""
    rng = np.random.default_rng(3)
    feature, weight = rng.standard_normal((2, 5)), rng.standard_normal((4, 15))
    label, scale = rng.integers(0, 4, 2), 8.0
    loss = lambda feature, weight: margin_softmax(feature, weight, label, scale=scale)[0]  # noqa: E731
    _, dfeature, dweight, _ = margin_softmax(feature, weight, label, scale=scale)
    for values, gradient, of in (
        (feature, dfeature, lambda moved: loss(moved, weight)), (weight, dweight, lambda moved: loss(feature, moved)),
    ):  # fmt: skip
        for place in np.ndindex(values.shape):
            step = np.zeros(values.shape)
            step[place] = 1e-6
            assert (of(values + step) - of(values - step)) / 2e-6 == pytest.approx(gradient[place], abs=1e-7)
    assert (np.abs(dweight).reshape(12, 5).sum(1) == 0).any()  # a centre that is nearest to no feature
