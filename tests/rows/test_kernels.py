"""The operations in C++ against NumPy, and what happens where they cannot be had."""

from __future__ import annotations

import logging

import numpy as np
import paddle
import pytest

from plsc.backend import program_view, static
from plsc.backend.compiler import Library
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.engine.program.session import Session
from plsc.models import BaseModel
from plsc.parallel.environment import Environment
from plsc.parallel.group import connected_group
from plsc.rows import row_kernels
from plsc.rows.optimizers.adamw import AdamW

CLASSES = 40
# one number, fewer than a vector of the processor, not a multiple of one, the usual one with a bias
SIZES = [1, 3, 67, 513]


class Pair:
    """A table of CLASSES pairs of rows in a program of its own, which brings those of ``index`` up to date and moves
    them."""

    def __init__(self, size, index, seed=0):
        assert row_kernels.available()
        rng = np.random.default_rng(seed)
        self.index = np.array(index, np.int64)
        count = len(index)
        self.table = rng.standard_normal((2 * CLASSES, size)).astype("float32")
        self.factors, self.steps = (rng.standard_normal((count, n)).astype("float32") for n in (2, 4))
        self.gradient = rng.standard_normal((count, size)).astype("float32")
        self.main, startup = paddle.static.Program(), paddle.static.Program()
        with static.building(self.main, startup):
            table = static.create_state("table", [2 * CLASSES, size], "float32")
            data = {name: paddle.static.data(name, [-1, *value.shape[1:]], str(value.dtype))
                    for name, value in self.feed.items()}  # fmt: skip
            self.found = list(row_kernels.bring_rows(table, data["index"], data["factors"]))
            row_kernels.move_rows_(table, data["index"], data["steps"], data["gradient"], data["rate"])
            self.found.append(paddle.nn.functional.embedding(data["index"] * 2, table))
        self.executor, self.scope = paddle.static.Executor(paddle.CPUPlace()), paddle.static.Scope()
        with paddle.static.scope_guard(self.scope):
            self.executor.run(startup)
        self.scope.find_var("table").get_tensor().set(self.table, paddle.CPUPlace())

    @property
    def feed(self):
        return {"index": self.index, "factors": self.factors, "steps": self.steps, "gradient": self.gradient,
                "rate": np.array([0.3], np.float32)}  # fmt: skip

    def run(self):
        """(rows, squares, weights after the move, the table)."""
        with paddle.static.scope_guard(self.scope):
            found = self.executor.run(self.main, feed=self.feed, fetch_list=self.found)
        return [*found, np.array(self.scope.find_var("table").get_tensor())]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("index", [[7], [39, 0], [5, 4, 38, 0, 17, 39, 20, 11]])
def test_rows_are_those_of_the_formula(size, index):
    pair = Pair(size, index)
    weight, velocity = (pair.table[offset::2][index].astype(np.float64) for offset in (0, 1))
    rows, squares, moved, table = pair.run()
    # float32: each of the two or three products is off by 2^-24 of itself, so is each sum
    roundoff = 4 * 2.0**-24
    now = pair.factors[:, :1] * weight + pair.factors[:, 1:] * velocity
    bound = np.abs(pair.factors[:, :1] * weight) + np.abs(pair.factors[:, 1:] * velocity)
    assert (np.abs(rows - now) <= roundoff * bound).all()
    np.testing.assert_allclose(squares, (rows.astype(np.float64) ** 2).sum(1, keepdims=True), rtol=1e-6)
    ww, wv, vw, vv = (pair.steps[:, place : place + 1].astype(np.float64) for place in range(4))
    rate = np.float64(np.float32(0.3))
    for offset, a, b, c in ((0, ww, wv, -rate), (1, vw, vv, 1.0)):
        expected = a * weight + b * velocity + c * pair.gradient
        bound = np.abs(a * weight) + np.abs(b * velocity) + np.abs(c * pair.gradient)
        assert (np.abs(table[offset::2][index] - expected) <= roundoff * bound).all()
    np.testing.assert_array_equal(moved, table[0::2][index])  # who reads after the move sees it
    others = np.setdiff1d(np.arange(CLASSES), index)
    for offset in (0, 1):
        np.testing.assert_array_equal(table[offset::2][others], pair.table[offset::2][others])


@pytest.mark.parametrize("row", [-1, CLASSES])
def test_a_row_that_is_not_there_is_an_error_and_nothing_is_written(row):
    pair = Pair(8, [3, row])
    said = "std::exception" if static.is_pir() else f"a row of a sample is not in the shard of {CLASSES} classes"
    with pytest.raises((RuntimeError, OSError), match=said):
        pair.run()
    np.testing.assert_array_equal(np.array(pair.scope.find_var("table").get_tensor()), pair.table)


# --- those of Adam ----------------------------------------------------------------------------------------


class Triple:
    """A table of CLASSES rows of weight and two moments, side by side, in a program that brings ``index`` up to date
    and moves them."""

    def __init__(self, size, index, epsilon=1e-8):
        assert row_kernels.available()
        rng, count, self.index = np.random.default_rng(1), len(index), np.array(index, np.int64)
        self.points = AdamW().points
        self.table = rng.standard_normal((3 * CLASSES, size)).astype("float32")
        self.table[2::3] = 10.0 ** rng.uniform(-24, 2, (CLASSES, size))  # epsilon counts for some, for others not
        self.table[2::3, 0] = 0.0
        factors = rng.uniform(0.5, 1.5, (count, 5 + len(self.points))).astype("float32")
        factors[-1, 4], factors[-1, 5:] = 0.0, 0.0  # has missed nothing
        self.feed = {
            "index": self.index, "factors": factors,
            "constants": np.array([epsilon, *self.points], np.float32),
            "moves": np.concatenate([factors[:, :2], rng.standard_normal((count, 1)).astype("float32")], axis=1),
            "gradient": rng.standard_normal((count, size)).astype("float32"),
            "step": np.array([0.9, 0.1, 0.99, 0.01, epsilon, 0.05, 0.3, 1.7, 2.3], np.float32),
        }  # fmt: skip
        self.main, startup = paddle.static.Program(), paddle.static.Program()
        with static.building(self.main, startup):
            table = static.create_state("table", [3 * CLASSES, size], "float32")
            data = {name: paddle.static.data(name, [-1, *value.shape[1:]], str(value.dtype))
                    for name, value in self.feed.items()}  # fmt: skip
            rows, squares = row_kernels.bring_adam_rows(table, data["index"], data["factors"], data["constants"])
            moved = (data[name] for name in ("moves", "gradient", "step"))
            row_kernels.move_adam_rows_(table, data["index"], rows, *moved)
            self.found = [rows, squares]
        self.executor, self.scope = paddle.static.Executor(paddle.CPUPlace()), paddle.static.Scope()
        with paddle.static.scope_guard(self.scope):
            self.executor.run(startup)
        self.scope.find_var("table").get_tensor().set(self.table, paddle.CPUPlace())

    def run(self):
        """(rows, squares, the table)."""
        with paddle.static.scope_guard(self.scope):
            found = self.executor.run(self.main, feed=self.feed, fetch_list=self.found)
        return [*found, np.array(self.scope.find_var("table").get_tensor())]


@pytest.mark.parametrize("size", [*SIZES, 64, 65])  # and the run of numbers that the operation sums at a time
@pytest.mark.parametrize("index", [[7], [39, 0], [5, 4, 38, 0, 17, 39, 20, 11]])
def test_rows_of_adam_are_those_of_the_formula(size, index):
    triple = Triple(size, index)
    weight, first, second = (triple.table[offset::3][index].astype(np.float64) for offset in range(3))
    rows, squares, table = triple.run()
    factors = triple.feed["factors"].astype(np.float64)
    keep, centre, half, shares = factors[:, 2:3], factors[:, 3:4], factors[:, 4:5], factors[:, 5:]
    total = sum(shares[:, [q]] / (np.exp(centre + half * point) * np.sqrt(second) + 1e-8)
                for q, point in enumerate(triple.points))  # fmt: skip
    total[-1] = 0.0
    # float32: the exponential has a relative error of 2^-24 times its argument, up to 3; 14 quotients are summed
    roundoff = 20 * 2.0**-24
    now, bound = keep * weight - first * total, np.abs(keep * weight) + np.abs(first * total)
    assert (np.abs(rows - now) <= roundoff * bound).all()
    np.testing.assert_array_equal(rows[-1], triple.feed["factors"][-1, 2] * triple.table[0::3][index[-1]])
    np.testing.assert_allclose(squares, (rows.astype(np.float64) ** 2).sum(1, keepdims=True), rtol=1e-6)
    beta1, rest1, beta2, rest2, epsilon, decay, rate, unbias1, unbias2 = triple.feed["step"].astype(np.float64)
    along = triple.feed["moves"][:, 2:].astype(np.float64)
    gradient = triple.feed["gradient"] - along * rows
    m = beta1 * factors[:, :1] * first + rest1 * gradient
    v = beta2 * factors[:, 1:2] * second + rest2 * gradient**2
    sizes = np.abs(beta1 * factors[:, :1] * first) + rest1 * (
        np.abs(triple.feed["gradient"]) + np.abs(along * rows)
    )
    change = m * unbias1 / (np.sqrt(v * unbias2) + epsilon)
    expected = (rows - rate * (change + decay * rows), m, v)
    below = np.sqrt(v * unbias2) + epsilon
    # the error of a difference of two products, relative to their sizes, is that of the second moment twice
    lost = np.abs(triple.feed["gradient"]) + np.abs(along * rows)
    of_second = v + rest2 * 2 * lost * np.abs(gradient)
    of_change = sizes * unbias1 / below + np.abs(change) * of_second / np.maximum(v, 1e-300)
    for offset, bound in enumerate((np.abs(rows) + rate * (of_change + decay * np.abs(rows)), sizes, of_second)):
        found = table[offset::3][index]
        assert (np.abs(found - expected[offset]) <= 8 * 2.0**-24 * bound).all(), offset
    others = np.setdiff1d(np.arange(CLASSES), index)
    for offset in range(3):
        np.testing.assert_array_equal(table[offset::3][others], triple.table[offset::3][others])


@pytest.mark.parametrize("row", [-1, CLASSES])
def test_a_row_of_adam_that_is_not_there_is_an_error_and_nothing_is_written(row):
    triple = Triple(8, [3, row])
    with pytest.raises((RuntimeError, OSError)):
        triple.run()
    np.testing.assert_array_equal(np.array(triple.scope.find_var("table").get_tensor()), triple.table)


# --- where they cannot be had -----------------------------------------------------------------------------


class Linear(BaseModel):
    def build_network(self, input, label, is_train=True):
        return paddle.nn.Linear(12, 4)(paddle.flatten(input, 1))


def start(optimizer="momentum", **classifier):
    paddle.enable_static()
    config = Config.from_dict({
        "optimizer": {"name": optimizer},
        "model": {"image_shape": [3, 2, 2], "embedding_size": 4}, "train_batch_size": 8,
        "classifier": {"num_classes": 61, "sample_ratio": 0.3, **classifier},
    })  # fmt: skip
    session = Session(build_train(config, UserObjects(model=Linear()), Environment(), 3), Environment(), seed=3)
    session.start(connected_group(Environment()))
    return session


def losses(session, steps):
    rng = np.random.default_rng(5)
    inputs = [{"image": rng.standard_normal((8, 3, 2, 2)).astype("float32"), "label": rng.integers(0, 61, 8)}
              for _ in range(12)]  # fmt: skip
    return [float(np.ravel(session.step(step, inputs[step], 0.1)["loss"])[0]) for step in steps]


def kinds(session):
    return {op.kind for op in program_view.walk(program_view.operations(session.program.main))}


@pytest.fixture
def unknown():
    """A process that has not asked yet."""
    row_kernels.available.cache_clear()
    yield
    row_kernels.available.cache_clear()


def test_without_a_compiler_the_log_says_so_once_and_paddles_operations_do_it(unknown, monkeypatch, caplog):
    usual = start()
    assert "plsc_move_rows" in kinds(usual)
    row_kernels.available.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING, "plsc"):
        others = [start(), start()]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "Paddle's operations, which is slower: compiler 'no-such-compiler' not found" in said[0]
    assert not any(kind.startswith("plsc_") for kind in kinds(others[0]))
    # the same sums in another order: 1e-7 a step
    np.testing.assert_allclose(losses(others[0], range(12)), losses(usual, range(12)), rtol=2e-6)


def test_a_library_that_cannot_be_loaded_is_told(unknown, tmp_path, monkeypatch, caplog):
    (tmp_path / "broken.so").write_text("no library")
    with open(tmp_path / "broken.so", "rb") as file:
        broken = Library(tmp_path / "broken.so", file.fileno())
        monkeypatch.setattr(row_kernels, "compiled_library", lambda source: broken)
        with caplog.at_level(logging.WARNING, "plsc"):
            assert not row_kernels.available()
    assert f"Paddle cannot load {tmp_path / 'broken.so'}" in caplog.text


def test_who_does_not_want_them_compiles_nothing(monkeypatch):
    monkeypatch.setattr(row_kernels, "available", lambda: pytest.fail("asked for"))
    for session in (start(compiled=False), start(sample_ratio=1.0), start(storage="bfloat16")):
        assert not any(kind.startswith("plsc_") for kind in kinds(session))


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_the_other(first, optimizer):
    """What is stored are the same rows, whoever worked on them."""
    straight, before, after = (start(optimizer, compiled=kind) for kind in (first, first, not first))
    assert ("plsc_move_adam_rows" in kinds(straight)) == (first and optimizer == "adamw")
    expected = losses(straight, range(12))
    assert losses(before, range(6)) == expected[:6]
    before.bring_rows_up_to_date()
    after.load_rows([(name, begin, rows.copy()) for name, begin, rows in before.blocks()])
    after.load_replicated(before.replicated())
    np.testing.assert_allclose(losses(after, range(6, 12)), expected[6:], rtol=2e-6)
