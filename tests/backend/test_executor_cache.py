"""An executor finds what it made of a program by the program, and never takes one for another."""

from __future__ import annotations

import gc

import numpy as np
import paddle
import pytest
from paddle.base import executor as paddles

from plsc.backend import ops, static
from plsc.engine.program.scopes import make_executor, make_scope
from plsc.parallel.environment import Environment


class Owner:
    pass


def times(factor: float) -> tuple:
    """(program, two fetches): factor * x and factor + x; the same names in each."""
    main = paddle.static.Program()
    with static.building(main, paddle.static.Program()):
        x = paddle.static.data("x", [2], "float32")
        return main, x * factor, x + factor


@pytest.fixture
def executor():
    return make_executor(Environment())


X = np.array([1.0, 2.0], np.float32)


def test_a_program_that_was_run_is_not_written_out_again(executor, monkeypatch):
    main, product, _ = times(3.0)
    if static.is_pir():
        monkeypatch.setattr(paddles, "_get_strong_program_cache_key_for_new_exe", None)  # who calls it fails
    for _ in range(2):
        assert executor.run(main, feed={"x": X}, fetch_list=[product])[0].tolist() == [3.0, 6.0]
    if static.is_pir():
        assert executor._executor_cache._get_cached_program_and_executor_pir_mode.cache_info().hits == 1


def test_programs_and_fetches_are_told_apart(executor):
    first, second = times(3.0), times(5.0)
    for _ in range(2):
        for (main, product, total), factor in ((first, 3.0), (second, 5.0)):
            assert executor.run(main, feed={"x": X}, fetch_list=[product])[0].tolist() == [factor, 2 * factor]
            assert executor.run(main, feed={"x": X}, fetch_list=[total])[0].tolist() == [1 + factor, 2 + factor]
            both = executor.run(main, feed={"x": X}, fetch_list=[total, product])
            assert [value[0] for value in both] == [1 + factor, factor]


def counting(by: int) -> tuple:
    """(program, startup program) that adds ``by`` to the state "count"; it is run without any fetch."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        ops.increment_(static.create_state("count", [1], "float32"), by)
    return main, startup


def count_in(scope) -> float:
    return float(np.asarray(scope.find_var("count").get_tensor())[0])


def test_scopes_are_told_apart(executor):
    main, startup = counting(1)
    owners = Owner(), Owner()
    scopes = [make_scope(owner)[0] for owner in owners]
    for program, scope in ((startup, 0), (startup, 1), (main, 0), (main, 1), (main, 1)):
        with paddle.static.scope_guard(scopes[scope]):
            executor.run(program)
    assert [count_in(scope) for scope in scopes] == [1.0, 2.0]


def test_a_program_that_has_gone_is_not_taken_for_a_new_one(executor):
    """More programs than are kept, and nothing but the program tells them apart: were those that are kept not held,
    the next one would lie in their place."""
    owner, expected = Owner(), 0
    scope = make_scope(owner)[0]
    with paddle.static.scope_guard(scope):
        executor.run(counting(0)[1])
        for by in range(1, 30):
            executor.run(counting(by)[0])
            expected += by
            gc.collect()
            assert count_in(scope) == expected
