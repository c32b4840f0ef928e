"""Paddle's flags, as the wheel for GPUs has them."""

from __future__ import annotations

import logging

import paddle
import pytest

from plsc.backend import cpu, private
from plsc.backend.gpu import CUDNN, tune_cudnn

SEARCH, PERSISTENT = CUDNN


@pytest.fixture(autouse=True)
def flags_as_before(monkeypatch):
    names = [*CUDNN, "FLAGS_new_executor_serial_run", "FLAGS_new_executor_sequential_run"]
    before = paddle.get_flags(names)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    yield
    paddle.set_flags(before)


def test_cudnn_is_tuned_as_plsc_2_2_did():
    assert paddle.get_flags(list(CUDNN)) == {SEARCH: False, PERSISTENT: False}
    (line,) = tune_cudnn()
    assert paddle.get_flags(list(CUDNN)) == {SEARCH: True, PERSISTENT: True}
    assert SEARCH in line and PERSISTENT in line and "another run may round otherwise" in line


def test_what_the_environment_says_of_cudnn_stays_and_is_named(monkeypatch):
    monkeypatch.setenv(SEARCH, "0")
    named, line = tune_cudnn()
    assert paddle.get_flags(list(CUDNN)) == {SEARCH: False, PERSISTENT: True}
    assert named == f"cuDNN: {SEARCH}=0, as the environment says" and SEARCH not in line and PERSISTENT in line
    monkeypatch.setenv(PERSISTENT, "0")
    assert len(tune_cudnn()) == 2


def test_operations_start_in_program_order_and_an_environment_that_says_otherwise_is_told(monkeypatch, caplog):
    """Without it Paddle 2.6 starts the last of the ready operations first, and sums of gradients after all others."""
    name = "FLAGS_new_executor_sequential_run"
    private._warn_replaced.cache_clear()
    paddle.set_flags({name: False})
    monkeypatch.setenv(name, "0")
    with caplog.at_level(logging.WARNING, logger="plsc.backend.private"):
        cpu.run_in_order()
        cpu.run_in_order()
    assert paddle.get_flags(name)[name]
    assert [r.getMessage() for r in caplog.records] == [
        f"{name}=0 of the environment is replaced by True, which PLSC needs"
    ]
