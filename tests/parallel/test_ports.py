"""Ports on which ranks listen: those of --port-range, found free."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from plsc.errors import LaunchError
from plsc.parallel import ports as module
from plsc.parallel.environment import Environment, parse_port_range
from plsc.parallel.ports import free_port, listen
from tests.dist.launch import free_ports

TWO = {
    "PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": "a:1,10.0.0.2:1",
    "PADDLE_CURRENT_ENDPOINT": "10.0.0.2:1",
}  # fmt: skip


@pytest.mark.parametrize("text, ports", [("20000-20003", range(20000, 20004)), ("1024-65535", range(1024, 65536)),
                                         ("5000-5000", range(5000, 5001))])  # fmt: skip
def test_a_range(text, ports):
    assert parse_port_range(text, "x=") == ports
    env = Environment.from_launch("cpu", {**TWO, "PLSC_PORT_RANGE": text})
    assert env.ports == ports and env.host == "10.0.0.2" and hash(env)


@pytest.mark.parametrize("text", ["20003-20000", "80-90", "1-70000", "20000", "20000:20009", "a-b", "-1-5", "2000-2-",
                                  "\u0661\u0661\u0661\u0661-9999", "9" * 4000])  # fmt: skip
def test_a_range_that_is_none_is_named(text):
    with pytest.raises(LaunchError, match="PLSC_PORT_RANGE=.*: must be FIRST-LAST, two ports from 1024") as caught:
        Environment.from_launch("cpu", {**TWO, "PLSC_PORT_RANGE": text})
    assert len(str(caught.value)) < 200


def test_without_a_range_any_port_will_do():
    assert Environment.from_launch("cpu", TWO).ports is None and Environment().host == ""
    assert free_port() > 0
    with listen("127.0.0.1", None, 1) as server:
        assert server.getsockname()[0] == "127.0.0.1"


def test_all_ports_of_a_range_are_found_and_none_outside_it():
    first = next(port for port in free_ports(20) if are_free(port, port + 1))
    ports = range(first, first + 2)
    with listen("127.0.0.1", ports, 1) as one:
        assert one.getsockname()[1] in ports
        assert free_port(ports) == sum(ports) - one.getsockname()[1]
        with listen("127.0.0.1", ports, 1) as other:
            assert {one.getsockname()[1], other.getsockname()[1]} == set(ports)
            for take in (lambda: listen("127.0.0.1", ports, 1), lambda: free_port(ports)):
                with pytest.raises(LaunchError, match=f"none of the ports {first}-{first + 1} .* is free on this mach"):
                    take()


def test_ports_that_outgoing_connections_take_come_last(monkeypatch):
    monkeypatch.setattr(module, "local_ports", lambda: range(20005, 40000))
    for _ in range(20):
        order = module._shuffled(range(20000, 20020))
        assert sorted(order[:5]) == list(range(20000, 20005)) and sorted(order) == list(range(20000, 20020))
    assert module.outside_local_ports(range(20000, 40000)) is None
    assert module.outside_local_ports(range(20000, 39999)) == range(20005, 40000)
    assert module.outside_local_ports(range(20006, 40000)) == range(20005, 40000)


def test_the_advice_leaves_ports_for_servers():
    """The same that docs/ranks.md shows; the port of --master is often the first one."""
    advised = module.advised_local_ports(range(20000, 21000))
    page = Path(__file__).resolve().parents[2] / "docs" / "ranks.md"
    assert f"='{advised[0]} {advised[-1]}'" in page.read_text(encoding="utf-8")
    assert module.advised_local_ports(range(20000, 20001)) == range(20000, 20001)


def test_the_local_ports_of_this_machine():
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert module.local_ports() == range(int(first), int(last) + 1)


def are_free(*ports: int) -> bool:
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


def test_an_address_of_another_machine():
    with pytest.raises(OSError, match="assign"):
        listen("192.0.2.1", range(20000, 20002), 1)
