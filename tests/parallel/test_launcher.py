"""Ranks end with whoever launched them, whatever ended it; processes that nobody launched do not."""

from __future__ import annotations

import os
import select
import signal

import pytest

from plsc.errors import LaunchError
from plsc.parallel import launcher
from plsc.parallel.environment import Environment

TWO = Environment(1, 2, 1, 2, ("127.0.0.1:1", "127.0.0.1:2"))
SECONDS = 30  # how long a loaded machine may take for what takes half a second


def orphan(env: Environment, variables: dict[str, str]) -> bool:
    """Whether a rank ends after the process that started it was killed. Who stays longer is told to."""
    reader, writer = os.pipe()
    told_reader, told_writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:  # the rank
            os.close(reader)
            os.close(told_writer)
            os.environ.update(variables)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
            launcher.end_with_launcher(env)
            os.write(writer, b"!")
            os.read(told_reader, 1)
            os._exit(0)
        signal.pause()
    os.close(writer)
    os.close(told_reader)
    try:
        assert os.read(reader, 1) == b"!"
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        ended = bool(select.select([reader], [], [], SECONDS if env.world_size > 1 or variables else 1.5)[0])
    finally:
        os.close(told_writer)
    os.read(reader, 1)  # until it has ended
    os.close(reader)
    return ended


@pytest.mark.parametrize("variables", [{launcher.LAUNCHED: "0"}, {}], ids=["Paddle's launcher", "another one"])
def test_a_rank_ends_when_its_launcher_is_killed(variables):
    assert orphan(TWO, variables)


def test_one_rank_of_the_launcher_ends_too():
    assert orphan(Environment(), {launcher.LAUNCHED: "0"})


def test_a_process_of_its_own_goes_on():
    assert not orphan(Environment(), {})


@pytest.mark.parametrize(("changes", "watched"), [
    ({}, True), ({"hangup": signal.SIG_IGN}, False), ({"session": os.getpid()}, False), ({"parent": 1}, False),
], ids=["another launcher", "nohup", "setsid", "gone"])  # fmt: skip
def test_ranks_that_are_to_outlive_their_shell_do(monkeypatch, changes, watched):
    found = {"hangup": signal.SIG_DFL, "session": 5, "parent": 7, **changes}
    calls = []
    monkeypatch.delenv(launcher.LAUNCHED, raising=False)
    monkeypatch.setattr(launcher, "_watch", calls.append)
    monkeypatch.setattr(launcher.signal, "getsignal", lambda number: found["hangup"])
    monkeypatch.setattr(launcher.os, "getsid", lambda process: found["session"])
    monkeypatch.setattr(launcher.os, "getppid", lambda: found["parent"])
    launcher.end_with_launcher(TWO)
    assert calls == [7] * watched


def test_a_launcher_that_had_ended_before_is_noticed(monkeypatch):
    monkeypatch.setenv(launcher.LAUNCHED, "0")
    monkeypatch.setattr(launcher.ctypes, "CDLL", lambda name: type("C", (), {"prctl": lambda *_: 0})())
    launcher.end_with_launcher(TWO)
    monkeypatch.setenv(launcher.LAUNCHER, str(os.getpid()))
    launcher.end_with_launcher(TWO)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.setenv(launcher.LAUNCHER, str(child))
    with pytest.raises(LaunchError, match="has ended; restart all ranks"):
        launcher.end_with_launcher(TWO)
    monkeypatch.delenv(launcher.LAUNCHER)
    monkeypatch.setattr(launcher.os, "getppid", lambda: 1)
    monkeypatch.setattr(launcher, "_same_program", lambda process: False)
    with pytest.raises(LaunchError, match="has ended"):
        launcher.end_with_launcher(TWO)
    monkeypatch.setattr(launcher, "_same_program", lambda process: True)  # the launcher is a container's first process
    launcher.end_with_launcher(TWO)


@pytest.mark.parametrize("variables, seconds", [
    ({}, None), ({launcher.LAUNCHED: "0"}, 30), ({launcher.LAUNCHED: "0", launcher.LAUNCHER: "7"}, None),
])  # fmt: skip
def test_how_long_a_rank_has_to_save(variables, seconds):
    assert launcher.grace_seconds(variables) == seconds
