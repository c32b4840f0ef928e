"""Ranks are forks of one server, and processes of their own where a fork would come too late."""

from __future__ import annotations

import os

import pytest

from plsc.backend import cpu
from plsc.parallel import environment
from tests.dist import ranks, server
from tests.dist.launch import plain_environment


def seen(env, payload):
    """What a rank finds."""
    return os.getppid(), os.getcwd(), {name: os.environ.get(name) for name in payload}, env.rank, env.world_size


NAMES = ["AWS_REGION", "FLAGS_check_nan_inf", "OMP_NUM_THREADS"]


@pytest.mark.parametrize("env, forked", [
    (None, True), ({"AWS_REGION": "here"}, True), ({"FLAGS_check_nan_inf": "1"}, False),
])  # fmt: skip
def test_where_ranks_come_from_and_what_they_find(tmp_path, env, forked):
    found = ranks.run("tests.dist.test_ranks:seen", 2, tmp_path, NAMES, env)
    parents = {part[0] for part in found}
    assert len(parents) == 1 and (parents != {os.getpid()}) == forked
    expected = {**{name: os.environ.get(name) for name in NAMES}, "OMP_NUM_THREADS": "1", **(env or {})}
    assert [part[1:] for part in found] == [(str(tmp_path), expected, rank, 2) for rank in (0, 1)]


def test_what_ran_before_in_this_process_does_not_make_ranks_slow_to_start(monkeypatch):
    forks = server.of_process(os.getpid())
    for name in ("CUSTOM_DEVICE_ROOT", "GLOG_minloglevel", "MKL_DEBUG_CPU_TYPE"):
        monkeypatch.delenv(name, raising=False)
    environment.quiet_paddle_logs()
    cpu.use_wide_kernels()
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "5")  # as on a processor of AMD
    monkeypatch.setenv("CUSTOM_DEVICE_ROOT", "")  # as Paddle does when it is imported
    assert os.environ["GLOG_minloglevel"] == "2" and forks.changes(plain_environment()) is not None


def test_a_change_of_one_rank_does_not_stay(tmp_path):
    ranks.run("tests.dist.test_ranks:seen", 1, tmp_path, [], {"AWS_REGION": "here"})
    assert ranks.run("tests.dist.test_ranks:seen", 1, tmp_path, NAMES[:1])[0][2] == {"AWS_REGION": None}


def broken(env, payload):
    raise ValueError("of rank 0") if env.rank == 0 else SystemExit(3)


def test_a_rank_that_fails_fails_the_test_with_what_it_said(tmp_path):
    with pytest.raises(AssertionError, match=r"exit codes \[1, 3\]\n(.*\n)*.*ValueError: of rank 0"):
        ranks.run("tests.dist.test_ranks:broken", 2, tmp_path)
