"""Losses of a user's own package on 1 to 3 real ranks against formulas in float64 and finite differences."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest

from tests.dist import ranks
from tests.dist.loss_checks import check_loss
from tests.dist.test_training_step import DECAY, GLOBAL_BATCH, MOMENTUM, make_case
from tests.reference import own_losses
from tests.reference.margin_softmax import momentum_step

SEED = 7  # of tests.dist.training_cases
SCALE = 16.0
EASY, TOY = {"loss_type": "easy_arcface", "loss_options": {"margin": 0.4}}, {"loss_type": "toy"}
LOOPS, PIECES = {"block_rows": 5, "few_blocks": 0}, {"block_rows": 5, "few_blocks": 40}
DATA, SAMPLED = {"model_parallel": False}, {"sample_ratio": 0.2}


def cases_of(loss, plugin):
    """One for each way over the rows, and for each way in which the ranks share the work."""

    def case(name, num_classes=29, steps=4, config=None, **options):
        classifier = {**loss, "scale": SCALE, **options.pop("classifier", {})}
        config = {"plugins": [plugin], **(config or {})}
        name = f"{loss['loss_type']} {name}"
        return make_case(name, num_classes, steps, classifier=classifier, config=config, **options)

    cases = [
        case("whole"),
        case("data parallel loops", classifier=DATA, **LOOPS),
        case("sampled pieces", 101, 3, classifier=SAMPLED, **PIECES),
    ]
    if loss is EASY:
        return cases
    return cases + [
        case("loops", **LOOPS),
        case("data parallel", classifier=DATA),
        case("sampled", 101, 3, classifier=SAMPLED),
        case("sampled data parallel loops", 101, 3, classifier={**SAMPLED, **DATA}, **LOOPS),
        case("clipped loops", config={"grad_clip_norm": 0.05}, **LOOPS),
        case("own optimizer", optimizer="momentum", rates=[0.2] * 4),
    ]


ON_THREE = "whole", "data parallel loops", "sampled pieces"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The example of docs/add_a_loss.md in a package outside of the checkout."""
    from tests.project.docs_kit import ROOT, blocks

    path = tmp_path_factory.mktemp("their_package") / "easy_margin.py"
    (text,) = [block.text for block in blocks(ROOT / "docs" / "add_a_loss.md") if "# easy_margin.py" in block.text]
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def outcome(plugin, tmp_path_factory):
    """A function: number of ranks -> ({name: case}, [what each rank found, by the name of the case])."""

    @functools.cache
    def on(world_size):
        cases = [*cases_of(EASY, str(plugin)), *cases_of(TOY, "tests.dist.toy_loss")]
        if world_size == 3:
            cases = [case for case in cases if case["name"].partition(" ")[2] in ON_THREE]
        parts = ranks.run(
            "tests.dist.training_cases:run_cases", world_size, tmp_path_factory.mktemp(f"ranks{world_size}"), cases
        )
        by_name = {case["name"]: case for case in cases}
        return by_name, [dict(zip(by_name, part)) for part in parts]

    return on


NAMES = [case["name"] for loss in (EASY, TOY) for case in cases_of(loss, "")]


def formula_of(case):
    options = case["config"]["classifier"]
    if options["loss_type"] == "toy":
        return own_losses.Toy(SCALE, SEED)
    return own_losses.EasyArcFace(SCALE, options["loss_options"]["margin"])


KNOWN: dict = {}


def train(case, *began):
    """What ``reference`` says. Runs that begin with the same numbers and draw the same rows share it."""
    key = case["name"], pickle.dumps(began)
    if key not in KNOWN:
        KNOWN[key] = reference(case, *began)
    return KNOWN[key]


def reference(case, start, first_weight, samples):
    """The same steps in NumPy: (losses, states after each, backbone weight, rows)."""
    formula = formula_of(case)
    weight, bias = (np.asarray(value, np.float64) for value in sorted(start.values(), key=lambda v: -v.ndim))
    values = [weight, bias, np.asarray(first_weight, np.float64)]
    velocities = [np.zeros_like(value) for value in values]
    losses, states = [], []
    for step, rate in enumerate(case["rates"]):
        image = case["images"][step].reshape(GLOBAL_BATCH, -1).astype(np.float64)
        label, kept = case["labels"][step], samples[step] if samples else np.arange(len(values[2]))
        batch = image @ values[0] + values[1], values[2][kept], np.searchsorted(kept, label)
        constants = formula.constants(*batch, step + 1)
        loss, dfeature, dkept = own_losses.gradients(formula, *batch, constants)
        drows = np.zeros_like(values[2])
        drows[kept] = dkept
        gradients = [image.T @ dfeature, dfeature.sum(0), drows]
        limit = case["config"].get("grad_clip_norm")
        if limit:
            norm = np.sqrt(sum((gradient * gradient).sum() for gradient in gradients))
            gradients = [gradient * min(1.0, limit / norm) for gradient in gradients]
        moved = [
            momentum_step(value, velocity, gradient, rate, MOMENTUM, DECAY)
            for value, velocity, gradient in zip(values, velocities, gradients)
        ]
        values, velocities = [value for value, _ in moved], [velocity for _, velocity in moved]
        losses.append(loss)
        states.append(formula.states)
    return losses, states, values[0], values[2]


def on_ranks(world_size, name):
    return pytest.param(world_size, name, marks=[pytest.mark.slow] if world_size > 2 else [])


@pytest.mark.parametrize("world_size, name", [
    on_ranks(size, name) for size in (1, 2, 3) for name in NAMES if size < 3 or name.partition(" ")[2] in ON_THREE
])  # fmt: skip
def test_training_is_that_of_the_formula(outcome, world_size, name):
    cases, found = outcome(world_size)
    case, parts = cases[name], [part[name] for part in found]
    check_loss(parts, case["config"]["classifier"].get("model_parallel", True), functools.partial(train, case), 1e-5)
