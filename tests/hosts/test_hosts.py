"""The hosts themselves: names, folders, cables, firewalls, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hosts.hosts import Hosts

ROOT = Path(__file__).resolve().parents[2]
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.0)"
SERVE = """
import socket
servers = [socket.create_server(("", port)) for port in (20000, 20010)]
print("ready", flush=True)
input()
"""


def can_connect(hosts: Hosts, name: str, port: int = 20000) -> bool:
    return hosts.start(1, [sys.executable, "-c", CONNECT, name, str(port)], stderr=subprocess.DEVNULL).wait(60) == 0


def test_names_folders_cables_and_firewalls(tmp_path):
    own = {2: {"n2": "127.0.1.1"}}
    with Hosts(2, tmp_path, networks=2, names={"other": "10.78.0.2"}, own_names=own) as hosts:
        for host in (1, 2):
            command = ["sh", "-c", "hostname > name; hostname >> ../all; ls /dev/shm > shm; touch /dev/shm/mine"]
            assert hosts.start(host, command).wait(60) == 0
            assert (hosts.disk(host) / "name").read_text() == f"n{host}\n"
            assert (hosts.disk(host) / "shm").read_text() == ""
        assert (tmp_path / "all").read_text() == "n1\nn2\n"
        assert hosts.run(2, "getent", "hosts", "n2").split()[0] == "127.0.1.1"
        assert hosts.run(1, "getent", "hosts", "n2").split()[0] == "10.77.0.2"
        server = hosts.start(2, [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"ready\n"
        assert hosts.listening(2) == {("0.0.0.0", 20000), ("0.0.0.0", 20010)} and hosts.listening(1) == set()
        assert can_connect(hosts, "n2") and can_connect(hosts, "other")
        hosts.cut(2)
        assert not can_connect(hosts, "n2") and can_connect(hosts, "other")
        hosts.heal(2)
        assert can_connect(hosts, "n2")
        hosts.firewall(2, "20000-20009")
        assert can_connect(hosts, "n2") and hosts.dropped(2) == 0
        assert not can_connect(hosts, "n2", 20010) and hosts.dropped(2) > 0
        server.terminate()
        assert server.wait(60) in (-signal.SIGTERM, 128 + signal.SIGTERM)
        server.stdin.close(), server.stdout.close()


FOREVER = """
import subprocess, sys, time
from pathlib import Path
from tests.hosts.hosts import Hosts
with Hosts(1, Path(sys.argv[1])) as hosts:
    hosts.start(1, ["setsid", "sleep", "3600"])
    print(*hosts._first.values(), flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_hosts_whose_test_was_killed(tmp_path, end):
    made = subprocess.Popen([sys.executable, "-c", FOREVER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    numbers = [int(word) for word in made.stdout.readline().split()]
    spaces = {os.readlink(f"/proc/{number}/ns/net") for number in numbers}
    assert len(spaces) == 2 and os.readlink("/proc/self/ns/net") not in spaces
    assert inside(spaces) >= set(numbers)
    made.send_signal(end)
    made.wait()
    made.stdout.close()
    deadline = time.monotonic() + 30
    while inside(spaces):
        assert time.monotonic() < deadline, inside(spaces)
        time.sleep(0.02)


def inside(spaces: set[str]) -> set[int]:
    """The processes in network namespaces."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns" / "net") in spaces:
                found.add(int(entry.name))
        except OSError:
            continue  # it has just ended
    return found
