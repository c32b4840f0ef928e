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


# --- where they cannot be had -----------------------------------------------------------------------------


class Linear(BaseModel):
    def build_network(self, input, label, is_train=True):
        return paddle.nn.Linear(12, 4)(paddle.flatten(input, 1))


def start(**classifier):
    paddle.enable_static()
    config = Config.from_dict({
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


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_the_other(first):
    """What is stored are the same rows, whoever worked on them."""
    straight, before, after = start(compiled=first), start(compiled=first), start(compiled=not first)
    expected = losses(straight, range(12))
    assert losses(before, range(6)) == expected[:6]
    before.bring_rows_up_to_date()
    after.load_rows([(name, begin, rows.copy()) for name, begin, rows in before.blocks()])
    after.load_replicated(before.replicated())
    np.testing.assert_allclose(losses(after, range(6, 12)), expected[6:], rtol=2e-6)
