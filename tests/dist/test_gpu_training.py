"""The programs of GPUs, executed on 1 to 4 CPU ranks with kernels that compute what Paddle's for GPUs do
(tests/kernels), against NumPy in float64 and against the programs of CPUs."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.backend import static
from plsc.engine.program.build import BY_DEVICE
from tests.dist import gpu_breaks, ranks, test_classifier
from tests.dist.test_training_step import MICRO_BATCHES, check_training, make_case
from tests.kernels.library import library
from tests.reference import optimizers

SAMPLED = {"num_classes": 203, "steps": 6}
HALF = {"mixed_precision": {"enabled": True, "init_loss_scaling": 1024.0}}
CASES = [
    make_case("model parallel", config={"calc_acc": True}),
    make_case("even cosface", num_classes=24, classifier={"loss_type": "cosface"}, config={"calc_acc": True}),
    make_case("clipped", config={"grad_clip_norm": 0.05}),
    make_case("softmax", classifier={"loss_type": "softmax"}),
    make_case("softmax sampled", **SAMPLED, classifier={"loss_type": "softmax", "sample_ratio": 0.2}),
    make_case("sampled", **SAMPLED, classifier={"sample_ratio": 0.2}, config={"calc_acc": True}),
    make_case("sampled clipped own rate", **SAMPLED, classifier={"sample_ratio": 0.2}, lr_factor=3.0,
              config={"grad_clip_norm": 0.05}),
    make_case("more positives than places", **SAMPLED, classifier={"sample_ratio": 0.02}),
    make_case("sampled many steps", num_classes=203, steps=40, classifier={"sample_ratio": 0.05}),
    make_case("data parallel", classifier={"model_parallel": False}),
    make_case("data parallel sampled", **SAMPLED, classifier={"sample_ratio": 0.2, "model_parallel": False},
              config={"grad_clip_norm": 0.05, "calc_acc": True}),
    make_case("own optimizer", optimizer="momentum", rates=[0.2] * 6),
    make_case("own optimizer data parallel", optimizer="momentum", rates=[0.2] * 6,
              classifier={"model_parallel": False}),
    make_case("float16 sampled", **SAMPLED, classifier={"sample_ratio": 0.2, "storage": "float16"}),
    make_case("bfloat16", classifier={"storage": "bfloat16"}),
    make_case("a bucket for each", bucket_bytes=1),
    make_case("loss scaling", config={"grad_clip_norm": 0.05, **HALF}),
    make_case("loss scaling sampled", **SAMPLED, classifier={"sample_ratio": 0.2}, config=HALF),
    make_case("loss scaling data parallel", classifier={"model_parallel": False}, config=HALF),
    make_case("accumulated", config={"calc_acc": True}, micro_batches=MICRO_BATCHES, bucket_bytes=1),
    make_case("accumulated sampled", **SAMPLED, classifier={"sample_ratio": 0.2}, micro_batches=MICRO_BATCHES,
              config={"grad_clip_norm": 0.05, **HALF}),
    make_case("accumulated data parallel", classifier={"model_parallel": False}, micro_batches=MICRO_BATCHES,
              config=HALF),
]  # fmt: skip
ADAM = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-3}  # as in test_optimizers.py
ADAMW = {"name": "adamw", "options": ADAM}
OF_ADAM = {
    "adamw sampled": ({"optimizer": ADAMW, **HALF}, (optimizers.AdamW(**ADAM), optimizers.AdamW(**ADAM))),
    "adafactor and lazy adamw": (
        {"optimizer": {"name": "adafactor"}, "class_optimizer": {**ADAMW, "sparse": "lazy"}, **HALF},
        (optimizers.Adafactor(), optimizers.Lazy(optimizers.AdamW(**ADAM))),
    ),
}  # fmt: skip


def adam_case(name):
    made = make_case(name, num_classes=203, steps=20, classifier={"sample_ratio": 0.1}, config=OF_ADAM[name][0])
    made["rates"] = [0.1 * rate for rate in made["rates"]]  # a step of them is about the rate
    return made


CASES += [adam_case(name) for name in OF_ADAM]


def by_plsc(case, block_rows=5):
    """The case with classifier.kernels: plsc, in several blocks of rows."""
    config = {**case["config"], "classifier": {**case["config"]["classifier"], "kernels": "plsc"}}
    return {**case, "name": case["name"] + ", plsc", "config": config, "block_rows": block_rows}


BY_PLSC = ("model parallel", "clipped", "softmax", "sampled", "more positives than places", "data parallel sampled",
           "own optimizer", "float16 sampled", "loss scaling", "loss scaling sampled",
           "loss scaling data parallel", "adamw sampled")  # fmt: skip
CASES += [by_plsc(case) for case in CASES if case["name"] in BY_PLSC]
CASES += [
    by_plsc(make_case("even sampled", num_classes=240, classifier={"sample_ratio": 0.2, "loss_type": "cosface"})),
    by_plsc(make_case("even", num_classes=24, config={"calc_acc": True}), 1),  # a block of a feature's own class only
]  # fmt: skip
ALONE = ("arcface even", "arcface uneven", "combined", "zero features", "lonely ranks", "unknown batch", "sampled",
         "sampled cosface", "sampled few", "sampled lonely", "more positives than num_sample",
         "sampled unknown batch")  # fmt: skip
CLASSIFIERS = [case for case in test_classifier.CASES if case["name"] in ALONE]


def with_wrong_label(case, label):
    """In its second step, of the last rank."""
    case["labels"][1, -1] = label
    return case


WRONG_LABELS = [
    with_wrong_label(make_case("full", steps=2), -1),
    with_wrong_label(make_case("full beyond", steps=2, config=HALF), 29),
    with_wrong_label(make_case("full accumulated", steps=2, config=HALF, micro_batches=MICRO_BATCHES), 29),
    with_wrong_label(make_case("sampled", num_classes=203, steps=2, classifier={"sample_ratio": 0.2}), 203),
    with_wrong_label(make_case("data parallel", steps=2, classifier={"model_parallel": False}), -1),
    with_wrong_label(make_case("data parallel sampled", num_classes=203, steps=2,
                               classifier={"sample_ratio": 0.2, "model_parallel": False}), 500),
]  # fmt: skip


def minimized_case(sample_ratio):
    rng = np.random.default_rng(2)
    return {
        "name": f"minimized {sample_ratio}",
        "num_classes": 31,
        "sample_ratio": sample_ratio,
        "image": rng.standard_normal((12, 8)).astype("float32"),
        "net": rng.standard_normal((8, 16)).astype("float32"),
        "label": rng.integers(0, 31, (12, 1)),
    }


MINIMIZED = [minimized_case(1.0), minimized_case(0.3)]


def resnet_case(name, block_rows=BY_DEVICE, **options):
    rng = np.random.default_rng(4)
    model = {"name": "ResNet10", "base_width": 4, "image_shape": [3, 16, 16], "embedding_size": 24, "dropout": 0.0}
    config = {"model": model, "train_batch_size": 4, "calc_acc": True, **options.pop("config", {}),
              "classifier": {"num_classes": 101, **options}}  # fmt: skip
    return lambda world_size: {
        "name": name,
        "config": config,
        "block_rows": block_rows,
        "images": rng.standard_normal((2, 4 * world_size, 3, 16, 16)).astype("float32"),
        "labels": rng.integers(0, 101, (2, 4 * world_size)),
    }


RESNETS = [
    resnet_case("full", config={"grad_clip_norm": 5.0}),
    resnet_case("sampled by plsc", kernels="plsc", sample_ratio=0.5, scale=16.0),  # the last rank has fewer classes
    resnet_case("a rule for other classes, in blocks", 7, loss_type="curricularface", filter_above=0.3),
]
# Two ranks run all cases, others those that may depend on how many they are.
ON_OTHERS = {
    1: ("accumulated sampled", "model parallel", "sampled", "data parallel sampled", "more positives than places"),
    3: ("model parallel, plsc", "sampled, plsc", "even, plsc", "data parallel sampled, plsc",
        "loss scaling sampled, plsc", "model parallel", "softmax sampled", "sampled clipped own rate",
        "more positives than places", "data parallel", "accumulated sampled", "loss scaling sampled"),
    4: ("even sampled, plsc", "model parallel, plsc", "clipped, plsc", "more positives than places, plsc",
        "accumulated", "even cosface", "sampled many steps", "data parallel sampled"),
}  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2, *(pytest.param(size, marks=pytest.mark.slow) for size in (3, 4))])
def outcome(request, tmp_path_factory):
    world_size = request.param
    cwd = tmp_path_factory.mktemp(f"gpu{world_size}")
    names = ON_OTHERS.get(world_size)
    orders = {
        "training": [case for case in CASES if names is None or case["name"] in names],
        "classifier": CLASSIFIERS if world_size == 2 else CLASSIFIERS[1::3],
        "wrong_labels": [*WRONG_LABELS, *test_classifier.WRONG_LABELS] if world_size < 3 else [],
        "minimized": MINIMIZED if world_size in (2, 4) else [],
        "both_devices": [case(world_size) for case in RESNETS] if world_size > 1 else [],
    }
    return orders, ranks.run("tests.dist.gpu_cases:run_all", world_size, cwd, (library(), orders))


def of(outcome, kind):
    """(case, what each rank returned) of the cases of one kind."""
    orders, parts = outcome
    return [(case, [part[kind][number] for part in parts]) for number, case in enumerate(orders[kind])]


def each(cases, check):
    """Check all and say which failed."""
    wrong = {}
    for case, parts in cases:
        try:
            check(case, parts)
        except AssertionError as error:
            wrong[case.get("name", "")] = " ".join(str(error).split())[:400]
    assert not wrong, wrong


def test_training_is_that_of_the_reference(outcome):
    def check(case, parts):
        name = case["name"].removesuffix(", plsc")
        if name in OF_ADAM:
            check_training(case, parts, OF_ADAM[name][1], 8.0)
        else:
            check_training(case, parts)

    each(of(outcome, "training"), check)


def test_classifier_in_a_users_program(outcome):
    each(of(outcome, "classifier"), test_classifier.check_loss_and_gradients)


def test_nothing_is_left_out():
    assert len(CLASSIFIERS) == len(ALONE)
    assert {name for names in ON_OTHERS.values() for name in names} <= {case["name"] for case in CASES}


def test_minimize_of_a_users_optimizer(outcome):
    each(of(outcome, "minimized"), test_classifier.check_minimized)


def test_a_label_that_is_no_class_leaves_no_number_anywhere(outcome):
    for case, parts in of(outcome, "wrong_labels"):
        for part in parts:
            if "rates" not in case:  # LargeScaleClassifier
                assert np.isnan(part["loss"]).all() and np.isnan(part["dfeature"]).all(), case["name"]
                assert np.isnan(part["dweight"]).any(), case["name"]
                continue
            assert np.isfinite(part["losses"][0]) and np.isnan(part["losses"][1]), case["name"]
            skips = "mixed_precision" in case["config"]
            assert all(np.isnan(value).all() != skips for value in part["end"].values()), case["name"]


def test_it_is_what_the_program_of_cpus_does(outcome):
    """A net with batch normalisation, in buckets: losses, accuracies, backbone, statistics, momentum, rows."""
    for case, parts in of(outcome, "both_devices"):
        for gpu, cpu in parts:
            for got, expected in zip(gpu[0], cpu[0]):
                for name, value in expected.items():
                    # float32 in another order, times the scale of 64
                    assert got[name] == pytest.approx(value, rel=2e-5, abs=1e-6), (case["name"], name)
            for got, expected in ((gpu[1], cpu[1]), (gpu[2], cpu[2])):
                assert sorted(got) == sorted(expected)
                for name, value in expected.items():
                    # normalisation over 4 pictures magnifies the rounding of float32 from layer to layer
                    limit = 5e-3 * max(np.abs(value).max(), 1e-3)
                    np.testing.assert_allclose(got[name], value, rtol=0, atol=limit, err_msg=f"{case['name']} {name}")
        for part in parts[1:]:  # what is replicated is the same to the bit
            for name, value in parts[0][0][1].items():
                np.testing.assert_array_equal(part[0][1][name], value, err_msg=name)


@pytest.mark.slow
def test_what_is_broken_shows_in_the_numbers(tmp_path):
    names = [name for name in gpu_breaks.BREAKS if static.is_pir() or "as they come" not in name]  # 2.6 adds up anyhow
    cases = {case["name"]: case for case in CASES}
    broken = [(name, cases[gpu_breaks.BREAKS[name][0]]) for name in names]
    parts = ranks.run("tests.dist.gpu_cases:run_all", 2, tmp_path, (library(), {"broken": broken}))
    unseen = []
    for number, (name, case) in enumerate(broken):
        try:
            check_training(case, [part["broken"][number] for part in parts])
            unseen.append(name)
        except AssertionError:
            pass
    assert not unseen
