"""Hosts for tests: network namespaces on a bridge, each with its own name, processes, /dev/shm and private folder.

    with Hosts(2, tmp_path) as hosts:
        process = hosts.start(1, ["hostname"], stdout=subprocess.PIPE)

Host i (from 1) is named n<i> and has the address 10.77.0.<i> on eth0; with ``networks=2`` also 10.78.0.<i> on eth1.
``folder/home`` is each host's own; all other files are shared. Needs root, util-linux, iproute2 and, for ``firewall``,
nftables: tools/test.sh says what it leaves out where something is missing.

A host lives as long as its first process, which the kernel kills when this process ends, whatever ends it. The
namespaces have no names and no mounts outside of themselves, so nothing is left over and no two runs can clash.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 60
SWITCH = 0  # its number among the hosts: the bridges that connect them


class Hosts:
    """``count`` hosts, as a context manager; they end with it. names: further names of addresses, for /etc/hosts of
    every host; ``own_names`` for that of one: {host: {name: address}}, which go before all others."""

    def __init__(
        self,
        count: int,
        folder: Path,
        networks: int = 1,
        names: dict[str, str] | None = None,
        own_names: dict[int, dict[str, str]] | None = None,
    ):
        self.count, self.folder, self.networks = count, folder.resolve(), networks
        self.home = self.folder / "home"
        self._names, self._own_names = names or {}, own_names or {}
        self._first: dict[int, int] = {}  # host -> its first process
        self._keepers: list[subprocess.Popen] = []

    def __enter__(self) -> Hosts:
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            self._begin(SWITCH)
            for network in range(self.networks):
                self.run(SWITCH, "ip", "link", "add", f"sw{network}", "type", "bridge")
                self.run(SWITCH, "ip", "link", "set", f"sw{network}", "up")
            for host in range(1, self.count + 1):
                self._begin(host)
                for network in range(self.networks):
                    self._plug(host, network)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for keeper in self._keepers:
            keeper.kill()  # and, with it, the first process of the host, and with that one all others
            keeper.wait()
        self._keepers.clear()

    def address(self, host: int, network: int = 0) -> str:
        return f"10.{77 + network}.0.{host}"

    def disk(self, host: int) -> Path:
        """What ``home`` is on this host, as this process sees it."""
        return self.folder / f"disk{host}"

    def start(self, host: int, command: Sequence[str], **options: Any) -> HostProcess:
        """Start a command on a host, in ``home`` unless ``cwd`` says otherwise; options as of subprocess.Popen."""
        cwd = str(options.pop("cwd", self.home))
        return HostProcess([*self._enter(host), "env", "-C", cwd, f"HOME={self.home}", *command], cwd="/", **options)

    def run(self, host: int, *command: str, text: str | None = None) -> str:
        """The output of a short command on a host. Raises AssertionError where it fails."""
        done = subprocess.run(
            [*self._enter(host), *command], input=text, cwd="/", text=True, timeout=START_SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)} on host {host}: {done.stdout}"
        return done.stdout

    def cut(self, host: int, network: int = 0) -> None:
        """Pull a host's cable: nothing passes any more, and no connection is closed."""
        self.run(SWITCH, "ip", "link", "set", f"v{host}n{network}", "nomaster")

    def heal(self, host: int, network: int = 0) -> None:
        self.run(SWITCH, "ip", "link", "set", f"v{host}n{network}", "master", f"sw{network}")

    def firewall(self, host: int, ports: str) -> None:
        """From now on accept connections from other hosts at these TCP ports only ("20000-20099"); the rest is dropped
        without a word."""
        rules = f"""
            table inet filter {{
                chain input {{
                    type filter hook input priority 0; policy drop;
                    iif lo accept
                    ct state established,related accept
                    tcp dport {{ {ports} }} accept
                    counter
                }}
            }}
        """
        self.run(host, "nft", "-f", "-", text=rules)

    def dropped(self, host: int) -> int:
        """How many packets the firewall of a host has dropped."""
        words = self.run(host, "nft", "list", "table", "inet", "filter").split()
        return int(words[words.index("counter") + 2])

    def listening(self, host: int) -> set[tuple[str, int]]:
        """(address, port) of all TCP sockets of a host that listen; by IPv6 the address is "::"."""
        found = set()
        for line in self.run(host, "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines():
            words = line.split()
            if len(words) > 3 and words[3] == "0A":  # TCP_LISTEN
                address, port = words[1].split(":")
                plain = socket.inet_ntoa(bytes.fromhex(address)[::-1]) if len(address) == 8 else "::"
                found.add((plain, int(port, 16)))
        return found

    def _begin(self, host: int) -> None:
        """Start the first process of a host, which sleeps in namespaces of its own."""
        self.disk(host).mkdir(exist_ok=True)
        table, ready = self.folder / f"hosts{host}", self.folder / f"ready{host}"
        ready.unlink(missing_ok=True)
        everyone = {f"n{one}": self.address(one) for one in range(1, self.count + 1)} | self._names
        pairs = [("localhost", "127.0.0.1"), *self._own_names.get(host, {}).items(), *everyone.items()]
        table.write_text("".join(f"{address} {name}\n" for name, address in pairs))
        script = (
            f"hostname n{host} && mount --bind '{self.disk(host)}' '{self.home}' && mount --bind '{table}' /etc/hosts"
            f" && mount -t tmpfs none /dev/shm && ip link set lo up && touch '{ready}' && exec sleep infinity"
        )
        keeper = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork",
             "--kill-child", "--mount-proc", "--propagation", "private", "sh", "-c", script],
            cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._keepers.append(keeper)
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert keeper.poll() is None, f"host {host}: {keeper.communicate()[1].decode()}"
            assert time.monotonic() < deadline, f"host {host} does not start"
            time.sleep(0.01)
        self._first[host] = children(keeper.pid)[0]

    def _plug(self, host: int, network: int) -> None:
        cable, inside = f"v{host}n{network}", f"eth{network}"
        there = str(self._first[host])
        self.run(SWITCH, "ip", "link", "add", cable, "type", "veth", "peer", "name", inside, "netns", there)
        self.run(SWITCH, "ip", "link", "set", cable, "master", f"sw{network}", "up")
        self.run(host, "ip", "address", "add", f"{self.address(host, network)}/24", "dev", inside)
        self.run(host, "ip", "link", "set", inside, "up")

    def _enter(self, host: int) -> list[str]:
        # The switch has only a network of its own: cables are plugged into hosts by the number of a process of theirs.
        spaces = ["-n"] if host == SWITCH else ["-m", "-u", "-i", "-n", "-p"]
        return ["nsenter", "-t", str(self._first[host]), *spaces]


class HostProcess(subprocess.Popen):
    """A command on a host. Signals go to the command, not to the `nsenter` that waits for it and ends as it does."""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            for child in children(self.pid):
                os.kill(child, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def children(process: int) -> list[int]:
    """The processes that a process has started, as their numbers are outside of the hosts."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
