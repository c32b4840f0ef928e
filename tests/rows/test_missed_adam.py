"""Rows that AdamW left alone, against the dense optimizer in NumPy float64, number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plsc.rows.history import MissedStepsOnHost, RowHistory
from plsc.rows.optimizers.adamw import AdamW
from plsc.rows.optimizers.missed_adam import LARGEST_ERROR, SMALLEST, MissedAdam, largest_error
from tests.reference import optimizers as reference

ROWS, SIZE, DECAY, EPSILON = 40, 16, 0.05, 1e-8
BETAS = [(0.9, 0.999), (0.9, 0.99), (0.95, 0.999), (0.8, 0.99), (0.0, 0.9), (0.9, 0.98), (0.9, 0.95), (0.99, 0.999)]


@pytest.mark.parametrize("beta1, beta2", BETAS)
def test_rows_end_as_the_dense_optimizer_leaves_them(beta1, beta2):
    """700 steps, four of 40 rows in each; sizes of gradients from 1e-12 to 1, so that a change is divided by epsilon,
    by the root of the second moment, and by both; rates that warm up, fall and are 0; steps that are skipped."""
    rng = np.random.default_rng(5)
    optimizer, dense = AdamW(beta1, beta2, EPSILON), reference.AdamW(beta1, beta2, EPSILON)
    assert not optimizer.repeats_missed_steps
    expected = rng.standard_normal((ROWS, SIZE))
    weight, states = expected.copy(), dense.start(expected)
    slots = [np.zeros((ROWS, SIZE)) for _ in optimizer.slots]
    since, history, count = np.zeros(ROWS, int), RowHistory(optimizer, DECAY), 0
    sizes, moved = 10.0 ** rng.uniform(-12, 0, (ROWS, SIZE)), np.zeros((ROWS, SIZE))

    def up_to_date(index):
        missed = MissedStepsOnHost(history.window(), since[index], DECAY)
        return optimizer.bring_up_to_date(weight[index], tuple(slot[index] for slot in slots), missed)

    for step in range(700):
        rate = 0.0 if step % 50 == 49 else 0.1 * min(1.0, step / 40) * (0.1 if step > 400 else 1.0)
        index = rng.choice(ROWS - 3, 4, replace=False)  # three rows are never sampled
        gradient = np.zeros((ROWS, SIZE))
        gradient[index] = rng.standard_normal((4, SIZE)) * sizes[index]
        skipped, numbers = step in (7, 300), tuple(optimizer.numbers(count + 1))
        now = up_to_date(index)
        if not skipped:
            count += 1
            before = expected
            expected = dense.step(expected, states, gradient, rate, DECAY, count)
            moved += np.abs(expected - before)
            now = optimizer.step(*now, gradient[index], history.make_step(rate, numbers))
        weight[index], since[index] = now[0], history.steps + 1
        for slot, value in zip(slots, now[1]):
            slot[index] = value
        history.advance(rate, skipped, numbers)
    found = up_to_date(np.arange(ROWS))
    # each change has a relative error of LARGEST_ERROR in the first steps, and much less later
    assert (np.abs(found[0] - expected) / moved).max() < LARGEST_ERROR
    for got, wanted in zip(found[1], states):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("beta1, beta2", BETAS)
@pytest.mark.parametrize("count", [1, 2, 10, 100, 100000])
def test_the_error_is_bounded_for_any_moments(beta1, beta2, count):
    """1, 2, ... missed steps after step ``count``, for roots of second moments from 0 to 1000."""
    optimizer, history = AdamW(beta1, beta2, EPSILON), None
    root = np.concatenate([[0.0], np.logspace(-16, 3, 300)])
    first, second, weight = np.ones((1, 301)), root[None] ** 2, np.zeros((1, 301))
    history, dense = RowHistory(optimizer, 0.0), (weight, first, second)
    for step in range(1, 401):
        numbers = optimizer.numbers(count + step)
        history.advance(1e-3 * (1 + step % 3), numbers=numbers)
        weight, slots = optimizer.step(dense[0], dense[1:], np.zeros((1, 301)),
                                       history.make_step(1e-3 * (1 + step % 3), numbers))  # fmt: skip
        dense = (weight, *slots)
        if step in (1, 2, 3, 10, 50, 400):
            missed = MissedStepsOnHost(history.window(), np.zeros(1, int), 0.0)
            found, _ = optimizer.bring_up_to_date(np.zeros((1, 301)), (first, root[None] ** 2), missed)
            if beta1:
                _, half = optimizer._missed._interval(optimizer.numbers(count + 1)[1])
                bound = largest_error(half, len(optimizer.points))
                assert bound < LARGEST_ERROR
                # what is left out, of the first step: rates differ by up to 3, bias corrections by the first one
                ratio = beta1 / math.sqrt(beta2)
                tail = 3.0 * math.sqrt(optimizer.numbers(count + 1)[1]) * SMALLEST / (1.0 - ratio)
                # float64: each of 400 steps rounds a few times, and the sum over the points
                rounding = (step + len(optimizer.points)) * 2.0**-50
                assert np.abs(found / dense[0] - 1.0).max() < bound + tail * (step > 50) + rounding
            else:
                assert not found.any() and not dense[0].any()


@pytest.mark.parametrize("beta1, beta2", [(0.9, 0.999), (0.0, 0.5)])  # of the second even beta2^j becomes 0
def test_ten_thousand_missed_steps(beta1, beta2):
    """Rows that moved in one of the first steps and were then left alone for 10,000, through the ends of windows, at
    which all rows are brought up to date; the rate warms up and falls along half a cosine."""
    rng, steps, history = np.random.default_rng(6), 10_000, RowHistory(AdamW(beta1, beta2), DECAY)
    optimizer, dense = history.optimizer, reference.AdamW(beta1, beta2, EPSILON)
    expected = rng.standard_normal((3, 5))
    weight = expected.copy()
    states, slots, moved = dense.start(expected), (np.zeros((3, 5)), np.zeros((3, 5))), 0.0
    since = np.zeros(3, int)

    def up_to_date(values):
        return optimizer.bring_up_to_date(*values, MissedStepsOnHost(history.window(), since, DECAY))

    for step in range(steps):
        if history.full:
            (weight, slots), since = up_to_date((weight, slots)), np.zeros(3, int)
            history.restart()
        rate = 0.01 * (step / 500 if step < 500 else 0.5 * (1.0 + math.cos(math.pi * (step - 500) / (steps - 500))))
        gradient = np.zeros((3, 5))
        if step in (3, 40):
            row = int(step == 40)  # the last one is never touched
            gradient[row] = 10.0 ** rng.uniform(-9, 0, 5)
            now, moments = up_to_date((weight, slots))
            own = history.make_step(rate, optimizer.numbers(step + 1))
            now, moments = optimizer.step(now[row], tuple(one[row] for one in moments), gradient[row], own)
            for whole, new in zip((weight, *slots), (now, *moments)):
                whole[row] = new
            since[row] = history.steps + 1
        before = expected
        expected = dense.step(expected, states, gradient, rate, DECAY, step + 1)
        moved = moved + np.abs(expected - before)
        history.advance(rate, numbers=optimizer.numbers(step + 1))
    weight, slots = up_to_date((weight, slots))
    assert (np.abs(weight - expected) / moved).max() < LARGEST_ERROR
    np.testing.assert_allclose(slots[1], states[1], rtol=1e-9, atol=1e-300)


def test_betas_that_would_not_be_exact_repeat_the_steps():
    """s_j falls by more than the interpolation can bridge while a_j matters; the rows are right nevertheless."""
    for beta1, beta2 in [(0.9, 0.9), (0.9, 0.8), (0.5, 0.0), (0.95, 0.92)]:
        assert not MissedAdam(beta1, beta2, EPSILON).is_exact
        assert AdamW(beta1, beta2).repeats_missed_steps and len(AdamW(beta1, beta2).nothing_missed()) == 4
    assert len(AdamW().nothing_missed()) == 5 + 14 and math.isclose(AdamW().nothing_missed()[0], 1.0)
