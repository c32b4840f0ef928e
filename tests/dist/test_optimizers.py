"""The built-in optimizers on one and two ranks, against NumPy float64 with the gradients of the written loss; momentum
has its own tests. The net is a matrix and a bias: of two dimensions and of one."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.rows.optimizers.adamw import AdamW
from tests.dist import ranks
from tests.dist.test_training_step import MICRO_BATCHES, check_training, make_case
from tests.reference import optimizers

# With a large epsilon, as gradients near it keep the error that comes from larger ones (test_own_optimizers.py).
ADAM = {"beta1": 0.8, "beta2": 0.6, "epsilon": 1e-2}
# its rows make up missed steps by plsc.rows.optimizers.missed_adam, those of ADAM by repeating them
STEADY = {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-2}
LARS = {"trust": 0.02}
MOMENTUM = optimizers.Momentum(0.9)
WITHOUT_BIAS = {"decay_vectors": False}


def case(name, optimizer, classes=None, sampled=True, rate=0.1, steps=12, ratio=0.2, classifier=None, blocks=None,
         **config):  # fmt: skip
    classifier = {**(classifier or {}), **({"sample_ratio": ratio} if sampled else {})}
    chosen = {"optimizer": optimizer, **({} if classes is None else {"class_optimizer": classes}), **config}
    made = make_case(name, 203 if sampled else 29, steps, config=chosen, classifier=classifier, **(blocks or {}))
    made["rates"] = [rate * own for own in made["rates"]]
    return made


BY_NUMBERS = {
    "in loops": {"blocks": {"block_rows": 5, "few_blocks": 0}, "steps": 60, "ratio": 0.05},
    "in pieces": {"blocks": {"block_rows": 5, "few_blocks": 3, "pieces": 3}},
    "clipped": {"grad_clip_norm": 0.05, "steps": 30},
    "not compiled": {"classifier": {"compiled": False}, "steps": 30},
    "softmax": {"classifier": {"loss_type": "softmax"}},
    "accumulated": {"blocks": {"micro_batches": MICRO_BATCHES}, "steps": 30},
}

LAZY = {
    "adamw": ({"name": "adamw", "options": STEADY}, optimizers.AdamW(**STEADY), {"steps": 60, "ratio": 0.05}),
    "adamw, not compiled": ({"name": "adamw", "options": STEADY}, optimizers.AdamW(**STEADY),
                            {"classifier": {"compiled": False}}),
    "adamw, repeated": ({"name": "adamw", "options": ADAM}, optimizers.AdamW(**ADAM), {}),
    "momentum": ({"name": "momentum"}, MOMENTUM, {"rate": 1.0, "steps": 50}),
    "momentum, data parallel": ({"name": "momentum"}, MOMENTUM, {"rate": 1.0, "grad_clip_norm": 0.05,
                                                                 "classifier": {"model_parallel": False}}),
}  # fmt: skip


def lazy(name, optimizer, reference, options):
    made = case(name, optimizer, {"sparse": "lazy"}, **options)
    return made, (reference, optimizers.Lazy(reference))


CASES = {
    "adamw": (case("adamw", {"name": "adamw", "options": ADAM, **WITHOUT_BIAS}), optimizers.AdamW(**ADAM)),
    "adamw, all": (case("adamw, all", {"name": "adamw", "options": ADAM}, sampled=False, grad_clip_norm=0.05,
                        ema={"decay": 0.9}),
                   optimizers.AdamW(**ADAM)),
    "adamw by numbers": (case("adamw by numbers", {"name": "adamw", "options": STEADY}, steps=60, ratio=0.05),
                         optimizers.AdamW(**STEADY)),
    "adamw by numbers, data parallel": (
        case("adamw by numbers, data parallel", {"name": "adamw", "options": STEADY}, grad_clip_norm=0.05,
             classifier={"model_parallel": False}), optimizers.AdamW(**STEADY)),
    **{f"adamw by numbers, {kind}": (
        case(f"adamw by numbers, {kind}", {"name": "adamw", "options": STEADY}, **options), optimizers.AdamW(**STEADY))
       for kind, options in BY_NUMBERS.items()},
    "adamw, accumulated": (
        case("adamw, accumulated", {"name": "adamw", "options": ADAM}, ema={"decay": 0.9},
             blocks={"micro_batches": MICRO_BATCHES}),
        optimizers.AdamW(**ADAM)),
    **{f"lazy, {kind}": lazy(f"lazy, {kind}", *options) for kind, options in LAZY.items()},
    "adamw, momentum": (
        case("adamw, momentum", {"name": "adamw", "options": ADAM}, {"name": "momentum"}, steps=50),
        (optimizers.AdamW(**ADAM), MOMENTUM),
    ),
    "momentum, adamw": (
        case("momentum, adamw", {**WITHOUT_BIAS}, {"name": "adamw", "options": ADAM}),
        (MOMENTUM, optimizers.AdamW(**ADAM)),
    ),
    "two of adamw": (
        case("two of adamw", {"name": "adamw", "options": ADAM}, {"name": "adamw", "options": {**ADAM, "beta1": 0.5}}),
        (optimizers.AdamW(**ADAM), optimizers.AdamW(0.5, 0.6, 1e-2)),
    ),
    "lamb": (case("lamb", {"name": "lamb", "options": ADAM, **WITHOUT_BIAS}, {"name": "momentum"}, steps=50),
             (optimizers.Lamb(**ADAM), MOMENTUM)),
    "adafactor": (case("adafactor", {"name": "adafactor"}, {"name": "momentum"}, steps=50),
                  (optimizers.Adafactor(), MOMENTUM)),
    "lars": (case("lars", {"name": "lars", "options": LARS}, {"name": "momentum"}, rate=1.0, steps=50),
             (optimizers.Lars(0.9, 0.02), MOMENTUM)),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """{number of ranks: [what each rank found, by the name of the case]}."""
    found = {}
    for world_size in (1, 2):
        cwd, cases = tmp_path_factory.mktemp(f"ranks{world_size}"), [made for made, _ in CASES.values()]
        parts = ranks.run("tests.dist.training_cases:run_cases", world_size, cwd, cases)
        found[world_size] = [dict(zip(CASES, part)) for part in parts]
    return found


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_training_is_that_of_the_reference(outcome, world_size, name):
    made, reference = CASES[name]
    # 8 times: a change is divided by its own size, so that small gradients count as much as large ones
    check_training(made, [rank[name] for rank in outcome[world_size]], reference, 8.0)


def test_which_rows_repeat_steps():
    assert AdamW(**ADAM).repeats_missed_steps and not AdamW(**STEADY).repeats_missed_steps


def test_lazy_rows_are_not_those_of_the_dense_optimizer(outcome):
    for name in ("lazy, adamw", "lazy, momentum"):
        made, (dense, _) = CASES[name]
        with pytest.raises(AssertionError):
            check_training(made, [rank[name] for rank in outcome[1]], dense, 8.0)


def test_the_bias_counts(outcome):
    """Its decay is seen: the same steps with another decay of the bias are told apart."""
    made, reference = CASES["adamw"]
    other = {**made, "config": {**made["config"], "optimizer": {**made["config"]["optimizer"], "decay_vectors": True}}}
    with pytest.raises(AssertionError):
        check_training(other, [rank["adamw"] for rank in outcome[1]], reference, 8.0)
    start, end = outcome[1][0]["lars"]["start"], outcome[1][0]["lars"]["end"]
    assert all(np.abs(end[name] - start[name]).max() > 1e-3 for name in start)


def test_averages_do_not_depend_on_the_ranks(outcome):
    """They are those of one rank as far as the weights are, and the same on both ranks to the bit."""
    (alone,), both = ([rank["adamw, all"] for rank in outcome[size]] for size in (1, 2))
    assert len(alone["averages"]) == 2
    for name, average in alone["averages"].items():
        np.testing.assert_allclose(both[0]["averages"][name], average, rtol=0, atol=1e-4 * np.abs(average).max())
        np.testing.assert_array_equal(both[0]["averages"][name], both[1]["averages"][name])
        assert np.abs(average - alone["end"][name[4:]]).max() > 1e-3 * np.abs(average).max()
