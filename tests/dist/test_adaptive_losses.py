"""The losses with states, norms, chance and rules for hard negatives on 1 to 4 real ranks, and in the program of GPUs,
against tests/reference/adaptive_losses.py. A new loss is a line of LOSSES."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest

from plsc.backend import static
from tests.dist import ranks
from tests.dist.cross import on_ranks
from tests.dist.loss_checks import check_loss
from tests.dist.test_training_step import DECAY, GLOBAL_BATCH, MOMENTUM, make_case
from tests.kernels.library import library
from tests.reference import adaptive_losses as reference
from tests.reference.margin_softmax import momentum_step

SEED, SCALE = 7, 16.0  # the seed is that of tests.dist.training_cases
# Features of these cases have norms of about 2 to 9: the constants are chosen so that they reach every branch.
LOSSES = {  # name: (formula, loss_type, its options, keys of ``classifier``)
    "adaface": (reference.AdaFace, "adaface", {"h": 0.8, "alpha": 0.3}, {}),
    "magface": (reference.MagFace, "magface", {"shortest": 3.0, "longest": 6.0, "penalty_weight": 2.0}, {}),
    "curricularface": (reference.CurricularFace, "curricularface", {"alpha": 0.2}, {"margin2": 0.3}),
    "elastic arc": (reference.ElasticArcFace, "elastic_arcface", {"sigma": 0.1}, {}),
    "elastic arc plus": (reference.ElasticArcFace, "elastic_arcface", {"sigma": 0.1, "plus": True}, {}),
    "elastic cos": (reference.ElasticCosFace, "elastic_cosface", {"sigma": 0.1}, {"margin3": 0.2}),
    "filtered": (reference.ArcFace, "arcface", {}, {"margin2": 0.3, "filter_above": 0.3}),
    "smoothed": (reference.ArcFace, "arcface", {}, {"margin2": 0.3, "label_smoothing": 0.2}),
    "all at once": (reference.CurricularFace, "curricularface", {"alpha": 0.2},
                    {"margin2": 0.3, "filter_above": 0.5, "label_smoothing": 0.1}),
    "weighted": (reference.MagFace, "magface", {"shortest": 3.0, "longest": 6.0, "penalty_weight": 2.0},
                 {"label_smoothing": 0.1, "class_weights": "factors.txt"}),
    "three centres": (reference.ArcFace, "arcface", {}, {"margin2": 0.3, "sub_centres": 3}),
    "two centres, hard": (reference.CurricularFace, "curricularface", {"alpha": 0.2},
                          {"margin2": 0.3, "label_smoothing": 0.1, "sub_centres": 2}),
    "uniface": (reference.UniFace, "uniface", {"negative_weight": 0.5, "bias_rate": 3.0}, {"margin3": 0.2}),
    "sphereface2": (reference.SphereFace2, "sphereface2", {"bias_rate": 3.0}, {"margin3": 0.2}),
    "all pairs at once": (reference.SphereFace2, "sphereface2", {"t": 2.0, "weight": 10.0, "bias_rate": 3.0},
                          {"margin3": 0.3, "filter_above": 0.5, "class_weights": "factors.txt", "sub_centres": 2}),
    "two centres, norms": (reference.AdaFace, "adaface", {"h": 0.8, "alpha": 0.3},
                           {"filter_above": 0.5, "sub_centres": 2}),
}  # fmt: skip
FACTORS = np.linspace(0.3, 3.0, 101)  # of the classes of a weighted loss
# name: number of classes, steps, more options of the case. 29 and 101 are divided unevenly on any number of ranks.
SAMPLED = {"classifier": {"sample_ratio": 0.2}}
WAYS = {
    "even": (24, 20, {}),
    "uneven": (29, 20, {}),
    "sampled": (101, 4, SAMPLED),
    "loops over a sample": (101, 4, {"classifier": {"sample_ratio": 0.2, "hard_negative_share": 0.4},
                                     "block_rows": 5, "few_blocks": 0}),
    "data parallel": (29, 4, {"classifier": {"model_parallel": False}}),
}
# (number of ranks, device): its ways. With Paddle 2.6, only what tells whether its operations do the same.
ON = {(2, "cpu"): ("uneven", "loops over a sample")} if not static.is_pir() else {
    (1, "cpu"): ("even",),
    (2, "cpu"): ("uneven", "loops over a sample", "data parallel"),
    (3, "cpu"): ("sampled",),
    (4, "cpu"): ("even",),
    (2, "gpu"): ("sampled",),
}  # fmt: skip


def case_of(loss, way):
    _, loss_type, options, keys = LOSSES[loss]
    num_classes, steps, more = WAYS[way]
    classifier = {"loss_type": loss_type, "loss_options": options, "scale": SCALE, **keys}
    more = {**more, "classifier": {**classifier, **more.get("classifier", {})}}
    if "class_weights" in keys:
        more["class_weights"] = FACTORS
    return make_case(f"{loss} {way}", num_classes, steps, **more)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A function: (number of ranks, device) -> [what each rank found, by the name of the case]."""

    @functools.cache
    def on(world_size, device):
        cases = [case_of(loss, way) for loss in LOSSES for way in ON[world_size, device]]
        cwd = tmp_path_factory.mktemp(f"{device}{world_size}")
        if device == "cpu":
            parts = ranks.run("tests.dist.training_cases:run_cases", world_size, cwd, cases)
        else:
            payload = library(), {"training": cases}
            found = ranks.run("tests.dist.gpu_cases:run_all", world_size, cwd, payload)
            parts = [part["training"] for part in found]
        return [{case["name"]: one for case, one in zip(cases, part)} for part in parts]

    return on


KNOWN: dict = {}


def train(loss, way, *began):
    """What the steps are in NumPy. Runs that begin with the same numbers and draw the same rows share it."""
    key = loss, way, pickle.dumps(began)
    if key not in KNOWN:
        KNOWN[key] = steps_of(loss, case_of(loss, way), *began)
    return KNOWN[key]


def steps_of(loss, case, start, first_weight, samples):
    """(losses, states after each step, backbone weight, rows)."""
    kind, _, options, keys = LOSSES[loss]
    formula = kind(SCALE, SEED, **options, **keys)
    formula.begin(round(len(first_weight) * case["config"]["classifier"].get("sample_ratio", 1.0)))
    weight, bias = (np.asarray(value, np.float64) for value in sorted(start.values(), key=lambda v: -v.ndim))
    values = [weight, bias, np.asarray(first_weight, np.float64)]
    velocities = [np.zeros_like(value) for value in values]
    losses, states = [], []
    for step, rate in enumerate(case["rates"]):
        image = case["images"][step].reshape(GLOBAL_BATCH, -1).astype(np.float64)
        kept = samples[step] if samples else np.arange(len(values[2]))
        label = np.searchsorted(kept, case["labels"][step])
        feature = image @ values[0] + values[1]
        if "class_weights" in keys:
            formula.weight = FACTORS[case["labels"][step]]
        value, dfeature, dkept = reference.loss_and_gradients(formula, feature, values[2][kept], label, step + 1)
        drows = np.zeros_like(values[2])
        drows[kept] = dkept
        gradients = [image.T @ dfeature, dfeature.sum(0), drows]
        moved = [
            momentum_step(value, velocity, gradient, rate, MOMENTUM, DECAY)
            for value, velocity, gradient in zip(values, velocities, gradients)
        ]
        values, velocities = [value for value, _ in moved], [velocity for _, velocity in moved]
        formula.end_step(rate)
        losses.append(value)
        states.append(formula.states)
    # a float32 run is off by up to 1e-5 after these steps: nearer to a jump, it may be on the other side of it
    assert formula.closest > 2e-5, f"choose other numbers: {formula.closest} from a place where the formula jumps"
    return losses, states, values[0], values[2]


RUNS = [on_ranks(size, device, loss, way) for (size, device), ways in ON.items() for way in ways for loss in LOSSES]


@pytest.mark.parametrize("world_size, device, loss, way", RUNS)
def test_training_is_that_of_the_formula(outcome, world_size, device, loss, way):
    parts = [part[f"{loss} {way}"] for part in outcome(world_size, device)]
    check_loss(parts, way != "data parallel", functools.partial(train, loss, way))
