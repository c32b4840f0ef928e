"""The interface that Gloo is given: that of the rank's own endpoint."""

from __future__ import annotations

import os

import pytest

from plsc.parallel import interfaces
from plsc.parallel.interfaces import VARIABLE, gloo_on_interface, interface_addresses, interface_of, is_loopback


@pytest.mark.parametrize("endpoints, rank, name", [
    (["127.0.0.1:1", "localhost:2"], 1, "lo"), (["127.0.1.1:1", "127.0.0.1:2"], 0, "lo"),
    (["10.0.0.1:1", "10.0.0.2:1"], 0, "eth0"), (["10.0.0.2:1", "10.0.0.1:1", "10.1.0.1:1"], 2, "ib0"),
    (["10.0.0.2:1", "10.0.0.1:1"], 0, None),  # an address that this machine does not have, as in some containers
    (["127.0.0.1:1", "10.0.0.1:2"], 0, None), (["a-name.invalid:1", "10.0.0.1:2"], 0, None),
])  # fmt: skip
def test_gloo_is_given_the_interface_of_the_endpoint(monkeypatch, endpoints, rank, name):
    there = {"lo": "127.0.0.1", "eth0": "10.0.0.1", "ib0": "10.1.0.1"}
    monkeypatch.setattr(interfaces, "interface_addresses", lambda: there)
    monkeypatch.delenv(VARIABLE, raising=False)
    with gloo_on_interface(endpoints, rank):
        assert os.environ.get(VARIABLE) == name
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "eth9")
    with gloo_on_interface(endpoints, rank):
        assert os.environ[VARIABLE] == "eth9"
    assert os.environ[VARIABLE] == "eth9"


def test_the_interfaces_of_this_machine():
    assert interface_addresses()["lo"] == "127.0.0.1" and interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None and interface_of("a-name.invalid") is None
    assert [is_loopback(one) for one in ("127.9.9.9", "localhost", "10.0.0.1", "n1")] == [True, True, False, False]
