"""What a rank raises when the store of rank 0 goes in the middle of a call, on either Paddle."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from plsc.errors import PeerError
from plsc.parallel import group as group_module
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group
from plsc.parallel.side import SideGroup


class GoneStore:
    """Answers as if every rank had come, until the call of that name, which fails as Paddle's store does."""

    def __init__(self, call: str, error: Exception):
        self._call, self._error = call, error

    def _answer(self, call: str, value):
        if call == self._call:
            raise self._error
        return value

    def set(self, key, value):
        return self._answer("set", None)

    def add(self, key, by):
        return self._answer("add", 2)

    def get(self, key):
        return self._answer("get", b"null")


@pytest.mark.parametrize("call", ["set", "add", "get"])
@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError])  # 3.3, 2.6, Python
@pytest.mark.parametrize("make", [Group, lambda env: SideGroup(env, "name")], ids=["group", "side"])
def test_a_store_that_is_gone_is_another_rank_that_is_gone(make, error, call):
    group = make(Environment())
    group.world_size = 2
    group._store = GoneStore("", error())
    assert group.all_gather("x") == [None, None]
    group._store = GoneStore(call, error("(InvalidArgument) TCP receive error. Details: Connection reset by peer."))
    with pytest.raises(PeerError, match="another rank has ended: .*reset by peer"):
        group.barrier("x")


@pytest.mark.parametrize("first", ["the report", "an error of its own"])
def test_one_line_where_the_report_and_an_error_of_its_own_come_together(monkeypatch, tmp_path, first):
    monkeypatch.setattr(group_module, "GRACE_SECONDS", 0.0 if first == "the report" else 60.0)
    child = os.fork()
    if child == 0:
        sys.stderr = open(tmp_path / "said", "w")
        group, saying = Group(Environment()), threading.Event()
        group.world_size = 2
        group.on_stopped = lambda text: (saying.set(), time.sleep(0.3))
        listener = threading.Thread(target=group._stop, args=("rank 1: x",))
        listener.start()
        if first == "the report":
            saying.wait(30)
        group.fail("y")
        print("plsc: error: [rank 0] y", file=sys.stderr, flush=True)
        listener.join(30)
        os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = (tmp_path / "said").read_text().splitlines()
    if first == "the report":
        assert (code, lines) == (1, ["plsc: error: [rank 0] stopped because of rank 1: x"])
    else:
        assert (code, lines) == (7, ["plsc: error: [rank 0] y"])
