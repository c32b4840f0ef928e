"""The addresses that a machine finds for itself and for the rendezvous, on hosts with two networks."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.hosts.hosts import Hosts
from tests.hosts.trainings import environment

# [host, port, own] of each [master, interface, own], or what the error says
FIND = """
import json, sys
from plsc.errors import LaunchError
from plsc.parallel.addresses import find_rendezvous
def find(case):
    try:
        found = find_rendezvous(*case, patience=0.0)
        return [found.host, found.port, found.own]
    except LaunchError as error:
        return str(error)
print(json.dumps([find(case) for case in json.loads(sys.argv[1])]))
"""
NAMES = {"head": "10.77.0.1", "fast": "10.78.0.1", "six": "fd00::1"}
OWN = {1: {"n1": "127.0.1.1"}, 2: {"n2": "127.0.1.1"}}


def find(hosts: Hosts, host: int, *cases: tuple) -> list:
    command = [sys.executable, "-c", FIND, json.dumps(cases)]
    process = hosts.start(host, command, env=environment(), stdout=subprocess.PIPE, text=True)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    return json.loads(output)


def test_addresses_on_hosts_with_two_networks(tmp_path):
    with Hosts(2, tmp_path, networks=2, names=NAMES, own_names=OWN) as hosts:
        assert find(
            hosts, 2, ("head:6170", None, None), ("fast:6170", None, None), ("10.78.0.1:1", None, None),
            ("n1:6170", None, None), ("head:6170", "eth1", None), ("head:6170", None, "10.78.0.2"),
            ("127.0.0.1:6170", None, None), ("localhost:6170", None, None),
        ) == [
            ["10.77.0.1", 6170, "10.77.0.2"], ["10.78.0.1", 6170, "10.78.0.2"], ["10.78.0.1", 1, "10.78.0.2"],
            ["10.77.0.1", 6170, "10.77.0.2"], ["10.77.0.1", 6170, "10.78.0.2"], ["10.77.0.1", 6170, "10.78.0.2"],
            ["127.0.0.1", 6170, "127.0.0.1"], ["127.0.0.1", 6170, "127.0.0.1"],
        ]  # fmt: skip
        first = find(
            hosts, 1, ("head:6170", None, None), ("fast:6170", "eth1", None), ("n1:6170", "eth0", None),
            ("n1:6170", None, "10.78.0.1"), ("n1:6170", None, None), ("head:6170", "eth1", None),
            ("head:6170", None, "127.0.1.1"), ("head:6170", "eth7", None), ("10.99.0.1:6170", None, None),
        )  # fmt: skip
        assert first[:4] == [
            ["10.77.0.1", 6170, "10.77.0.1"], ["10.78.0.1", 6170, "10.78.0.1"], ["10.77.0.1", 6170, "10.77.0.1"],
            ["10.78.0.1", 6170, "10.78.0.1"],
        ]  # fmt: skip
        assert first[4:] == [
            "--master n1:6170 is 127.0.1.1 on this machine, at which no other machine reaches it: name the interface "
            "of its network by --interface: eth0 (10.77.0.1), eth1 (10.78.0.1)",
            "--master head:6170 is an address of this machine, 10.77.0.1, but not the one to use, 10.78.0.1 of eth1: "
            "give --master 10.78.0.1:6170 on every machine",
            "this machine's address is given as 127.0.1.1, at which no other machine reaches it: leave out --host and "
            "POD_IP, or give the address in the network of --master",
            "--interface eth7: this machine has no such interface with an IPv4 address; there are: eth0 (10.77.0.1), "
            "eth1 (10.78.0.1)",
            "--master 10.99.0.1:6170: this machine has no route to 10.99.0.1 (Network is unreachable); check its "
            "network",
        ]
        errors = find(
            hosts, 2, ("six:6170", None, None), ("[fd00::1]:6170", None, None), ("::1:6170", None, None),
            ("nobody:6170", None, None), ("head", None, None), ("head:0", None, None), ("head:99999", None, None),
            ("head:6170", None, "127.0.1.1"),
        )  # fmt: skip
        for text, words in zip(errors, [
            "six has IPv6 addresses only (fd00::1), and Paddle's launcher knows IPv4 only: give an IPv4",
            "knows IPv4 only", "knows IPv4 only", "this machine does not know 'nobody' (", "must be HOST:PORT",
            "must be HOST:PORT", "must be HOST:PORT", "is given as 127.0.1.1, at which no other machine reaches it",
        ]):  # fmt: skip
            assert words in text
        late = "import sys; from plsc.parallel.addresses import find_rendezvous; print(find_rendezvous('late:1').own)"
        process = hosts.start(2, [sys.executable, "-c", late], env=environment(), stdout=-1, stderr=-1, text=True)
        assert "'late' (" in (said := process.stderr.readline()) and "trying again for 60 s" in said
        with open(tmp_path / "hosts2", "a") as table:  # in place: it is mounted
            table.write("10.77.0.1 late\n")
        assert process.communicate(timeout=60) == ("10.77.0.2\n", "")
        hosts.run(1, "ip", "route", "add", "default", "via", "10.78.0.2")
        assert find(hosts, 1, ("n1:6170", None, None)) == [["10.78.0.1", 6170, "10.78.0.1"]]
