"""Waiting for other machines: what is said, when it ends, and that strangers do not matter. The server is Paddle's."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import types

import pytest
from paddle.distributed.launch.controllers import master
from paddle.distributed.launch.utils.kv_client import KVClient

from plsc.errors import LaunchError
from plsc.parallel import rendezvous
from plsc.parallel.addresses import Rendezvous
from plsc.parallel.rendezvous import RendezvousClient, meet_by, report_failure
from tests.dist.launch import free_ports

HOST = "127.0.0.1"


@pytest.fixture
def server():
    module = types.SimpleNamespace(KVServer=master.KVServer, KVClient=None)
    meet_by(module, 2, HOST)
    made = module.KVServer(free_ports(1)[0])
    made.start()
    yield made
    made.stop()


@pytest.fixture
def said(monkeypatch):
    """What was said, by a clock that goes on by 5 s whenever a client waits."""
    clock = [0.0]

    def sleep(seconds):
        clock[0] += 5.0

    monkeypatch.setattr(rendezvous, "time", types.SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    return []


def entry(number: int) -> str:
    return json.dumps({"candidate": f"10.0.0.{number}:70", "endpoints": f"10.0.0.{number}:71"})


def test_it_works_as_paddles_own(server):
    ours, theirs = RendezvousClient(f"{HOST}:{server.port}", 2), KVClient(f"{HOST}:{server.port}")
    assert ours.wait_server_ready(timeout=5) and theirs.wait_server_ready(timeout=5)
    assert ours.get_prefix("/job/info") == {}
    assert ours.put("/job/info/a/-1", entry(1)) and theirs.put("/job/info/b/-1", entry(2))
    assert ours.get_prefix("/job/info") == theirs.get_prefix("/job/info")
    assert ours.get_prefix("/job/info") == {"/job/info/a/-1": entry(1), "/job/info/b/-1": entry(2)}


def test_a_server_that_is_not_there(said):
    client = RendezvousClient(f"{HOST}:{free_ports(1)[0]}", 2, said.append)
    with pytest.raises(LaunchError, match=r"waited 600 s .* no launcher answers .*refused\); start the same") as end:
        client.wait_server_ready()
    assert f"at --master {HOST}:" in str(end.value) and "(an address that no other machine can reach)" in str(end.value)
    assert 30 <= len(said) <= 41 and all("no launcher answers there" in line for line in said)
    with pytest.raises(LaunchError, match="does not answer any more"):
        client.put("/a", "b")


def test_machines_that_do_not_come(server, said):
    client = RendezvousClient(f"{HOST}:{server.port}", 2, said.append)
    client.put("/job/info/a", entry(7))
    with pytest.raises(LaunchError, match=r"1 of 2 machines have come \(10.0.0.7\); start the same"):
        while client.get_prefix("/job/info"):
            pass
    assert 30 <= len(said) <= 41 and all("1 of 2 machines have come (10.0.0.7)" in line for line in said)


def test_more_machines_than_were_told(server):
    client = RendezvousClient(f"{HOST}:{server.port}", 2)
    for number in (1, 2, 2):
        client.put(f"/job/info/{number}{len(client.get_prefix('/job'))}", entry(number))
    with pytest.raises(LaunchError, match=r"3 machines .*\(10.0.0.1, 10.0.0.2, 10.0.0.2\), but --nnodes is 2"):
        client.get_prefix("/job/info")


def test_a_machine_that_says_why_it_does_not_come(server):
    client = RendezvousClient(f"{HOST}:{server.port}", 2)
    client.put("/job/info/a", entry(1))
    assert report_failure(Rendezvous(HOST, server.port, "10.0.0.2"), "n2 (10.0.0.2)", "cannot read 'n\u00f6ne.yaml'", 1)
    with pytest.raises(LaunchError, match="^n2 \\(10.0.0.2\\): cannot read 'n\u00f6ne.yaml'$"):
        client.get_prefix("/job/info")
    assert not report_failure(Rendezvous(HOST, free_ports(1)[0], "10.0.0.2"), "n2", "nobody hears it", 1, seconds=0.5)


def test_the_machine_of_the_rendezvous_says_why_there_is_none():
    meets = Rendezvous(HOST, free_ports(1)[0], HOST)
    told: list[bool] = []
    reporter = threading.Thread(target=lambda: told.append(report_failure(meets, "n1", "no GPU 0", 1, seconds=60)))
    reporter.start()
    stranger = None
    while stranger is None:
        with contextlib.suppress(OSError):
            stranger = socket.create_connection((HOST, meets.port))
    stranger.sendall(b"\0\n\n")
    client = RendezvousClient(meets.endpoint, 2)
    assert client.wait_server_ready() and client.put("/job/info/a", entry(1))
    with pytest.raises(LaunchError, match="^n1: no GPU 0$"):
        client.get_prefix("/job/info")
    reporter.join(30)
    stranger.close()
    assert told == [True]
    assert not report_failure(meets, "n1", "nobody asks", 1, seconds=0.3)
    with socket.create_server((HOST, meets.port)):
        assert not report_failure(meets, "n1", "the port is taken", 1, seconds=60)


@pytest.mark.parametrize("answer", [b"<html>", b"[1]", b'{"a": 1}', b"\xff", b"[" * 100000])
def test_something_else_that_answers_there(monkeypatch, answer):
    client = RendezvousClient(f"{HOST}:6170", 2)
    monkeypatch.setattr(client, "request", lambda *arguments: (answer, ""))
    with pytest.raises(LaunchError, match="--master 127.0.0.1:6170: what answers there is no launcher; choose another"):
        client.get_prefix("/job/info")


def test_strangers_delay_nobody(server):
    strangers = [socket.create_connection((HOST, server.port)) for _ in range(3)]
    strangers[0].sendall(b"\0\xff" * 1000)
    strangers[1].sendall(b"PUT /job")
    done = threading.Event()

    def ask() -> None:
        RendezvousClient(f"{HOST}:{server.port}", 2).wait_server_ready()
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    assert done.wait(20)
    assert server.server_address[0] == HOST
    for stranger in strangers:
        stranger.close()
