"""Hard negatives on 1 to 4 real ranks, and in the program of GPUs: samples, table, losses and rows against NumPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from plsc.backend import static
from plsc.parallel.shards import class_range
from tests.dist import ranks
from tests.dist.cross import on_ranks
from tests.dist.test_training_step import DECAY, GLOBAL_BATCH, MOMENTUM, make_case
from tests.kernels.library import library
from tests.reference.hard_negatives import Model
from tests.reference.margin_softmax import margin_softmax, momentum_step

SEED, SCALE, MARGINS = 7, 16.0, (1.0, 0.5, 0.0)  # the seed is that of tests.dist.training_cases
RATIO = 0.3
# name: number of classes, share, steps, more of the case
WAYS = {
    "uneven": (101, 0.5, 12, {}),
    "even": (96, 0.5, 12, {}),
    "all": (101, 1.0, 6, {}),
    "little": (101, 0.07, 6, {}),
    "loops": (101, 0.5, 6, {"block_rows": 5, "few_blocks": 0}),
    "data parallel": (101, 0.5, 6, {"classifier": {"model_parallel": False}}),
    "few": (10, 0.5, 6, {}),  # so few rows that a feature's own class would be among the nearest
    "none on one rank": (19, 0.5, 6, {}),  # of 3: shards of 7, 7 and 5, samples of 2, 2 and 1
    "one class on one rank": (7, 1.0, 4, {}),  # 3, 3 and 1
    "grouped": (2000, 0.4, 5, {}),  # more rows than are searched one by one
}
ON = {(2, "cpu"): ("uneven", "loops")} if not static.is_pir() else {
    (1, "cpu"): ("uneven", "all", "few", "grouped"),
    (2, "cpu"): ("even", "loops", "data parallel", "little"),
    (3, "cpu"): ("uneven", "data parallel", "none on one rank", "one class on one rank"),
    (4, "cpu"): ("uneven", "all"),
    (2, "gpu"): ("uneven",),
}  # fmt: skip


def case_of(way):
    num_classes, share, steps, more = WAYS[way]
    keys = {"scale": SCALE, "sample_ratio": RATIO, "hard_negative_share": share, **more.get("classifier", {})}
    case = make_case(f"hard {way}", num_classes, steps, **{**more, "classifier": keys})
    # the classes come again, and some twice in a batch; the last batch is one class
    case["labels"] = np.random.default_rng(5).integers(0, 20, case["labels"].shape) * max(1, num_classes // 20)
    case["labels"] %= num_classes
    case["labels"][-1] = case["labels"][0, 0]
    return case


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A function: (number of ranks, device) -> [what each rank found, by way]."""

    @functools.cache
    def on(world_size, device):
        cases = [case_of(way) for way in ON[world_size, device]]
        cwd = tmp_path_factory.mktemp(f"{device}{world_size}")
        if device == "cpu":
            parts = ranks.run("tests.dist.training_cases:run_cases", world_size, cwd, cases)
        else:
            found = ranks.run("tests.dist.gpu_cases:run_all", world_size, cwd, (library(), {"training": cases}))
            parts = [part["training"] for part in found]
        return [dict(zip(ON[world_size, device], part)) for part in parts]

    return on


RUNS = [on_ranks(size, device, way) for (size, device), ways in ON.items() for way in ways]


@pytest.mark.parametrize("world_size, device, way", RUNS)
def test_samples_table_and_training_are_those_of_the_formula(outcome, world_size, device, way):
    case, (num_classes, share, _, more) = case_of(way), WAYS[way]
    parts = [part[way] for part in outcome(world_size, device)]
    pieces = parts if "classifier" not in more else parts[:1]
    model = Model([class_range(num_classes, rank, len(pieces)) for rank in range(len(pieces))], RATIO, share, SEED)
    start = sorted(parts[0]["start"].values(), key=lambda value: -value.ndim)
    weight, bias = (np.asarray(value, np.float64) for value in start)
    values = [weight, bias, np.concatenate([part["first_weight"] for part in pieces]).astype(np.float64)]
    velocities, losses, hard = [np.zeros_like(value) for value in values], [], []
    for step, rate in enumerate(case["rates"]):
        label = case["labels"][step]
        samples = model.samples(label, step + 1)
        hard.append(model.num_hard)
        for part, sample in zip(pieces, samples):
            np.testing.assert_array_equal(np.sort(part["sample"][step]), sample, err_msg=f"step {step}")
        kept = np.sort(np.concatenate(samples))
        image = case["images"][step].reshape(GLOBAL_BATCH, -1).astype(np.float64)
        feature = image @ values[0] + values[1]
        model.remember(feature, values[2], kept, label)
        places = np.searchsorted(kept, label)
        loss, dfeature, dkept, _ = margin_softmax(feature, values[2][kept], places, MARGINS, SCALE)
        losses.append(loss)
        drows = np.zeros_like(values[2])
        drows[kept] = dkept
        moved = [
            momentum_step(value, velocity, gradient, rate, MOMENTUM, DECAY)
            for value, velocity, gradient in zip(values, velocities, [image.T @ dfeature, dfeature.sum(0), drows])
        ]
        values, velocities = [value for value, _ in moved], [velocity for _, velocity in moved]
    assert model.gap > 2e-6  # cosines in float32 are off by less
    assert hard[0] == 0 and max(hard) >= min(3, share * RATIO * num_classes / 2) or num_classes < 20  # it is used
    np.testing.assert_array_equal(np.concatenate([part["nearest"] for part in pieces]), model.table(num_classes))
    for part in parts:  # as in tests.dist.loss_checks
        np.testing.assert_allclose(part["losses"], losses, rtol=1e-5)
    got = np.concatenate([part["weight"] for part in pieces])
    np.testing.assert_allclose(got, values[2], rtol=0, atol=1e-5 * np.abs(values[2]).max())


def test_in_data_parallel_mode_all_ranks_keep_the_same_table(outcome):
    for world_size in (2, 3) if static.is_pir() else ():
        first, *others = (part["data parallel"]["nearest"] for part in outcome(world_size, "cpu"))
        assert first.any() and all((other == first).all() for other in others)
