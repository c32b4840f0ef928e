"""Sampled rows of AdamW over hundreds of steps against the dense optimizer: Paddle's own, and NumPy in float64.

Some rows take part in every step, some in every 7th, 60th or 200th, some in one and some in none.
"""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from plsc.backend import static
from plsc.classifiers import ClassifierSpec, Shard
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import RowRate, make_rows
from plsc.parallel.environment import Environment
from plsc.rows import history as row_history
from plsc.rows.blocks import RowBlocks
from plsc.rows.gradients import RowGradients
from plsc.rows.optimizer import Update
from plsc.rows.optimizers.adamw import AdamW
from tests.reference import optimizers as reference

ROWS, SIZE, STEPS, DECAY = 24, 12, 600, 0.05
PERIODS = [1, 1, 7, 7, 7, 60, 60, 60, 60, 200, 200, 200, 200]  # of the first rows
SKIPPED = (5, 333)


def rate_of(step):
    """A warm-up of 50 steps, which begins with 0, then half a cosine."""
    return 0.01 * (step / 50 if step < 50 else 0.5 * (1.0 + math.cos(math.pi * (step - 50) / (STEPS - 50))))


def sampled(step):
    found = [row for row, period in enumerate(PERIODS) if step % period == row % period]
    return np.array([*found, len(PERIODS)] if step == 10 else found, np.int64)  # the one after them once


def gradients(kind):
    """[STEPS, ROWS, SIZE]; of rows that are not sampled they are not used."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((STEPS, ROWS, SIZE))
    if kind == "of all sizes":  # a number has a size of its own: sqrt(v) far below epsilon, near it and above
        values *= 10.0 ** rng.uniform(-14, 1, (1, ROWS, SIZE))
    if kind == "adversarial":  # long nothing, then a shock, of one sign: m / sqrt(v) is as large as it can be
        values = np.where(np.arange(STEPS)[:, None, None] % 61 == 0, 100.0, 1e-9) * np.sign(values[:1])
    return values.astype("float32")


class SampledTable:
    """Rows of plsc.rows in a program of their own, and what Session does for them."""

    def __init__(self, optimizer, compiled):
        self.optimizer, env = optimizer, Environment()
        spec = ClassifierSpec(ROWS, SIZE, sample_ratio=0.5, compiled=compiled)
        self.main, startup = paddle.static.Program(), paddle.static.Program()
        with static.building(self.main, startup):
            index = paddle.static.data("index", [-1], "int64")
            gradient, rate = (paddle.static.data(*one, "float32") for one in (("g", [-1, SIZE]), ("rate", [1])))
            numbers = tuple(paddle.static.data(f"n{number}", [1], "float32") for number in range(2))
            self.rows = make_rows(UserObjects(), spec, Shard.of(spec, env), env, optimizer, RowRate(DECAY))
            assert self.rows.spec.compiled == compiled
            blocks = RowBlocks(index, ROWS, None)
            given = RowGradients(blocks, self.rows.fetch, lambda piece, rows: gradient)
            self.rows.update(given, Update(optimizer, rate, DECAY, numbers))
        self.catch_up = paddle.static.Program()
        with static.building(self.catch_up, paddle.static.Program()):
            self.rows.append_bring_up_to_date()
        self.executor, self.scope = paddle.static.Executor(paddle.CPUPlace()), paddle.static.Scope()
        self.run(startup, {})
        self.history = row_history.RowHistory(optimizer, DECAY)

    def run(self, program, feed):
        with paddle.static.scope_guard(self.scope):
            self.executor.run(program, feed=feed)

    @property
    def waiting(self):
        return {"row_table": self.history.table(), "window_step": np.array([self.history.steps], np.int64)}

    def step(self, index, gradient, rate, count):
        if self.history.full:
            self.bring_up_to_date()
        numbers = self.optimizer.numbers(count)
        feed = {f"n{place}": np.array([number], np.float32) for place, number in enumerate(numbers)}
        self.run(self.main, {"index": index, "g": gradient, "rate": np.array([rate], np.float32), **feed,
                             **self.waiting})  # fmt: skip
        self.history.advance(rate, numbers=numbers)

    def leave_out(self, rate):
        self.history.advance(rate, skipped=True, numbers=self.optimizer.numbers(1))

    def bring_up_to_date(self):
        self.run(self.catch_up, {"index": np.arange(ROWS), **self.waiting})
        self.history.restart()

    def values(self):
        """[weight, first moment, second moment]."""
        found = []
        for table in self.rows.tables.values():
            whole = np.array(self.scope.find_var(table.value.name).get_tensor())
            found.append(whole[table.offset :: table.stride].copy())
        return found


class DenseTable:
    """paddle.optimizer.AdamW on the same weight."""

    def __init__(self, weight, betas):
        self.main, startup = paddle.static.Program(), paddle.static.Program()
        with paddle.static.program_guard(self.main, startup), paddle.utils.unique_name.guard("dense_adamw."):
            gradient = paddle.static.data("g", [ROWS, SIZE], "float32")
            attr = paddle.ParamAttr("dense", paddle.nn.initializer.Assign(weight))
            parameter = paddle.static.create_parameter([ROWS, SIZE], "float32", attr=attr)
            self.rate = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: 0.0)
            paddle.optimizer.AdamW(self.rate, *betas, weight_decay=DECAY).minimize(paddle.sum(parameter * gradient))
        self.executor, self.scope = paddle.static.Executor(paddle.CPUPlace()), paddle.static.Scope()
        with paddle.static.scope_guard(self.scope):
            self.executor.run(startup)

    def step(self, gradient, rate):
        self.rate.last_lr = rate
        with paddle.static.scope_guard(self.scope):
            self.executor.run(self.main, feed={"g": gradient})

    def weight(self):
        return np.array(self.scope.find_var("dense").get_tensor())


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "by Paddle"])
@pytest.mark.parametrize("betas, kind, window", [
    ((0.9, 0.999), "of all sizes", 4096), ((0.9, 0.999), "adversarial", 97), ((0.9, 0.95), "of all sizes", 4096),
])  # fmt: skip
def test_rows_are_those_of_dense_adamw(monkeypatch, compiled, betas, kind, window):
    """600 steps, two of them skipped, with one window or with seven."""
    paddle.enable_static()
    monkeypatch.setattr(row_history, "WINDOW_STEPS", window)
    table, all_gradients = SampledTable(AdamW(*betas), compiled), gradients(kind)
    start = table.values()[0]
    dense = DenseTable(start, betas)
    written = reference.AdamW(*betas, 1e-8)
    expected = start.astype(np.float64)
    states, moved, count = written.start(expected), np.zeros((ROWS, SIZE)), 0
    for step in range(STEPS):
        index, gradient = sampled(step), np.zeros((ROWS, SIZE), np.float32)
        if step in SKIPPED:
            table.leave_out(rate_of(step))
            continue
        count += 1
        gradient[index] = all_gradients[step][index]
        table.step(index, gradient[index], rate_of(step), count)
        dense.step(gradient, rate_of(step))
        before = expected
        expected = written.step(expected, states, gradient.astype(np.float64), rate_of(step), DECAY, count)
        moved += np.abs(expected - before)
    table.bring_up_to_date()
    weight, first, second = table.values()
    # float32: the change of a step has some ten roundings, of 2^-24 each, and the sum one for each step in which the
    # row is written, of the weight; largest for rows that are written in every step
    sizes = np.abs(expected).max(axis=0, keepdims=True)
    bound = 20 * 2.0**-24 * moved + np.sqrt(STEPS) * 4 * 2.0**-24 * sizes
    assert (np.abs(weight - expected) / bound).max() < 1.0
    assert (np.abs(weight - dense.weight()) / bound).max() < 2.0  # which rounds the weight in every step
    for found, wanted in ((first, states[0]), (second, states[1])):
        # beta^k in float32: a rounding for each step that is made, and so at most 2^-24 each
        np.testing.assert_allclose(found, wanted, rtol=STEPS * 2.0**-23, atol=1e-30)
    still = slice(len(PERIODS) + 1, None)  # rows that no step touched only decay
    assert not first[still].any() and np.abs(weight[still] / start[still] - expected[still] / start[still]).max() < 1e-6
    assert moved[:2].min() > 1e-4 or kind == "of all sizes"
