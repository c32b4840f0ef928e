"""Foreign connections while the ranks connect: silent ones, talkative ones, and ones that know half of the hello."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time

import pytest

from plsc.parallel.failure_channel import FailureChannel, RankAcceptor, _listen_at

TOKEN = "0123456789abcdef"


def hello(rank: object, token: str = TOKEN) -> bytes:
    return f"{token} {rank}".ljust(64).encode()


@pytest.fixture
def server():
    with _listen_at("127.0.0.1", 64) as server:
        yield server


def connect(server, said: bytes = b"") -> socket.socket:
    made = socket.create_connection(server.getsockname(), timeout=60)
    made.sendall(said)
    return made


def test_strangers_are_not_waited_for(server):
    """Each silent one cost ten seconds, one after the other: seven of them are more than there is time."""
    strangers = [connect(server) for _ in range(7)]
    strangers += [connect(server, said) for said in (
        b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03" * 100, hello(1, "another token"), hello("x"), hello(-1), hello(0),
        hello(3),
        hello(10**50), TOKEN.encode(), hello("1 1"), b"\xff" * 64, hello("\u0661"),
    )]  # fmt: skip
    connect(server, b"gone").close()
    ours = {rank: connect(server, hello(rank)) for rank in (2, 1)}
    again = connect(server, hello(2))  # somebody who has listened cannot take a place that is taken
    found = RankAcceptor(server, TOKEN, 3).accept_all(time.monotonic() + 30)
    assert sorted(found.values()) == [1, 2]
    for peer, rank in found.items():
        assert peer.getpeername() == ours[rank].getsockname() and peer.getblocking()
        peer.close()
    for stranger in [*strangers, again, *ours.values()]:
        stranger.close()


def test_a_hello_may_come_in_pieces(server):
    ours, said = connect(server), hello(1)

    def speak() -> None:
        for byte in said:
            ours.sendall(bytes([byte]))

    thread = threading.Thread(target=speak)
    thread.start()
    found = RankAcceptor(server, TOKEN, 2).accept_all(time.monotonic() + 60)
    thread.join()
    assert list(found.values()) == [1]
    for end in [ours, *found]:
        end.close()


def test_a_rank_that_does_not_come_is_named(server):
    ours = connect(server, hello(1))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TimeoutError, match=r"ranks \[2\] have not connected"):
        RankAcceptor(server, TOKEN, 3).accept_all(time.monotonic() + 0.5)
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()


@pytest.mark.parametrize("most", [-1, 3])  # and two ranks; -1: who speaks while the next one comes is forgotten
@pytest.mark.parametrize("said", [b"", b"x"])
def test_many_strangers_do_not_use_up_the_files(server, monkeypatch, most, said):
    monkeypatch.setattr("plsc.parallel.failure_channel._MAX_UNKNOWN", most)
    strangers = [connect(server, said) for _ in range(20)]
    ours = connect(server, hello(1))
    found = RankAcceptor(server, TOKEN, 2).accept_all(time.monotonic() + 60)
    assert list(found.values()) == [1]
    for end in [*strangers, ours, *found]:
        end.close()


def test_a_rank_comes_in_where_strangers_hold_all_files(server):
    strangers = [connect(server) for _ in range(30)]
    ours = connect(server, hello(1))
    before, free = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 6, before[1]))
    try:
        found = RankAcceptor(server, TOKEN, 2).accept_all(time.monotonic() + 30)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert list(found.values()) == [1]
    for end in [*strangers, ours, *found]:
        end.close()


def test_the_ranks_meet_while_strangers_knock():
    """Two channels, with foreign connections before the other rank knows the port."""
    told, place, failed, strangers = threading.Event(), [], [], []

    def share(value):
        if value is not None:
            place.append(value)
            strangers.extend(socket.create_connection(("127.0.0.1", value[0])) for _ in range(4))
            told.set()
        assert told.wait(60)
        return place[0]

    made = {}
    threads = [threading.Thread(target=lambda rank=rank: made.update({rank: FailureChannel(
        rank, 2, "127.0.0.1", share, failed.append, 30)})) for rank in (0, 1)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made[1].report("a reason")
    assert made[0].failure_reason(60) == "rank 1: a reason"
    made[0].close()
    for stranger in strangers:
        stranger.close()


@pytest.mark.parametrize(("host", "at"), [
    ("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("a-name.invalid", "0.0.0.0"), ("203.0.113.7", "0.0.0.0"),
])  # fmt: skip
def test_where_it_listens(host, at):
    with _listen_at(host, 1) as server:
        assert server.getsockname()[0] == at
