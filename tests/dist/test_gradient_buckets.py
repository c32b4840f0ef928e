"""The backbone's gradients summed in buckets on real ranks: the same as in one sum, the same on every rank.

That the sum in buckets is that of the formula is held by test_training_step.py, whose cases "a bucket for each" have
one for each gradient.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.dist import ranks

SIZES = [1, 15_000, 10**9]  # bytes: a bucket for each gradient, several, one for all
OPTIONS = {"plain": {}, "clipped": {"grad_clip_norm": 0.5}}


RUNS = [(2, "plain"), pytest.param((2, "clipped"), marks=pytest.mark.once), (3, "plain")]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """A function: (number of ranks, options) -> what each rank found, run once for each."""

    @functools.cache
    def of(world_size, options):
        steps = 3 if world_size == 2 else 1  # a roundoff grows over steps, where an activation changes its sign by it
        payload = {"bucket_bytes": SIZES, "steps": steps, "options": OPTIONS[options]}
        return ranks.run("tests.dist.bucket_cases:run", world_size, tmp_path_factory.mktemp("buckets"), payload)

    return of


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_buckets_change_no_number(outcomes, run):
    outcome = outcomes(*run)
    one = outcome[0]["together"][SIZES[-1]]
    assert len(one) > 80
    for size in SIZES[:-1]:
        for name, value in outcome[0]["together"][size].items():
            # a sum of two numbers has one order; the norm of all gradients is the sum of those of the buckets
            if len(outcome) == 2 and run[1] != "clipped":
                np.testing.assert_array_equal(value, one[name], err_msg=name)
            else:
                # which rank Gloo begins a sum with depends on the place in the buffer: a roundoff (6e-8) of its parts,
                # which are larger than what they leave; what would be 0 is up to 2e-6 of noise
                np.testing.assert_allclose(value, one[name], rtol=1e-4, atol=1e-4 * np.abs(one[name]).max() + 1e-5)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_all_ranks_hold_the_same(outcomes, run):
    outcome = outcomes(*run)
    for size in SIZES:
        for other in outcome[1:]:
            for name, value in outcome[0]["together"][size].items():
                np.testing.assert_array_equal(value, other["together"][size][name], err_msg=name)


@pytest.mark.parametrize("run", [RUNS[0], RUNS[2]], ids=str)  # clipping changes none of them
def test_statistics_are_the_mean_of_what_each_rank_saw(outcomes, run):
    """The first step's forward pass knows nothing of other ranks, so each rank alone tells its part."""
    outcome = outcomes(*run)
    together, names = outcome[0]["one step"], [name for name in outcome[0]["one step"] if "running" in name]
    assert len(names) > 20
    for name in names:
        alone = [part["alone"][name].astype(np.float64) for part in outcome]
        # float32: a sum of the ranks' numbers and a division, a roundoff each
        np.testing.assert_allclose(together[name], np.mean(alone, axis=0), rtol=1e-6, atol=1e-7, err_msg=name)
    means = [name for name in names if np.abs(outcome[0]["alone"][name] - outcome[1]["alone"][name]).max() > 1e-3]
    assert means, "the ranks saw the same"
