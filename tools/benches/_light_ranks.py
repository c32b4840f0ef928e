"""Ranks that speak only the protocol of the control connections, hundreds of them in one process, without Paddle.

For `bench.py ranks --simulate`: the bench is rank 0, with the code of a real one; the others are one more process,
which checks that all its ranks receive the same.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

from plsc.config import Config
from plsc.parallel.channel import Channel
from plsc.parallel.connection import Connection
from plsc.parallel.environment import Environment
from plsc.parallel.frames import Limits, encode
from plsc.parallel.hello import hello
from plsc.parallel.hub import Hub, allow_files
from plsc.parallel.naming import host_of
from plsc.parallel.ports import free_port

CHANNEL = "group"
# What the ranks do in turn: meet; agree on settings and data; save a checkpoint, with an exchange after each phase.
PHASES = ("start", *["agree"] * 4, *["save"] * 4)


@functools.cache
def settings() -> bytes:
    return json.dumps(Config().to_dict()).encode()


def value(step: int, rank: int) -> bytes:
    """What a rank exchanges in a step of PHASES, as long as in a real run: equal settings, other facts and files."""
    facts = json.dumps({"host": f"node{rank // 8}", "cores": 96, "data": "0" * 64, "memory": 10**12 + rank}).encode()
    shard = json.dumps([None, {"name": f"shard_{rank:05d}", "bytes": 10**9 + rank, "sha256": f"{rank:064x}"}]).encode()
    nothing = b"[null, null]"
    return (b"", settings(), facts, nothing, nothing, facts, nothing, shard, nothing)[step]


def simulate(ranks: int) -> dict[str, float]:
    """Seconds of each phase on rank 0 of ``ranks``, of which the start includes that of the process of the others; and
    of the CPU, in both processes together."""
    endpoints = [f"127.0.0.1:{free_port()}", *(f"127.0.0.1:{rank}" for rank in range(1, ranks))]
    seconds = dict.fromkeys(PHASES, 0.0)
    began = time.perf_counter()
    hub = Hub(Environment(0, ranks, 0, ranks, tuple(endpoints)))
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-m", "benches._light_ranks"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here) as others:
        others.stdin.write(json.dumps(endpoints))
        others.stdin.close()
        channel = Channel(hub, CHANNEL)
        for step, phase in enumerate(PHASES):
            found = channel.exchange(value(step, 0), seconds=600)
            seconds[phase] += time.perf_counter() - began
            if found != [value(step, rank) for rank in range(ranks)]:
                raise AssertionError(f"step {step}: a value is not that of its rank")
            began = time.perf_counter()
        received = json.loads(others.stdout.read())
    if [(len(of_ranks), len(set(of_ranks))) for of_ranks in received] != [(ranks - 1, 1)] * len(PHASES):
        raise AssertionError("not all ranks have received the same")
    hub.close(60)
    used = sum(os.times()[:4])  # this process and that of the others, from their first instruction on
    return {**{f"{phase}_seconds": round(each, 3) for phase, each in seconds.items()}, "cpu_seconds": round(used, 2)}


class LightRanks:
    """All ranks but 0. ``received``: for each step, the checksum of what each rank has received."""

    def __init__(self, endpoints: list[str]):
        self.received: list[list[int]] = [[] for _ in PHASES]
        self._selector = selectors.DefaultSelector()
        self._steps: dict[Connection, list[int]] = {}  # rank, step
        host, port = host_of(endpoints[0]), int(endpoints[0].rsplit(":", 1)[1])
        for rank in range(1, len(endpoints)):
            env = Environment(rank, len(endpoints), rank, len(endpoints), tuple(endpoints))
            connection = Connection(_connect(host, port), Limits(2**24, 2**40))
            self._steps[connection] = [rank, 0]
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(encode(hello(env)))
            self._offer(connection)

    def run(self) -> None:
        """Go through all steps."""
        while self._steps:
            for key, _ in self._selector.select():
                self._read(key.data)

    def _offer(self, connection: Connection) -> None:
        rank, step = self._steps[connection]
        connection.send(encode({"gather": CHANNEL, "call": step + 1, "first": False}, value(step, rank)))

    def _read(self, connection: Connection) -> None:
        messages = connection.receive()
        if messages is None:
            raise SystemExit(f"rank {self._steps[connection][0]}: {connection.end_reason}")
        for header, body in messages:
            if "welcome" in header or "beat" in header:
                continue
            rank, step = self._steps[connection]
            if (header.get("gathered"), header.get("call")) != (CHANNEL, step + 1):
                raise SystemExit(f"rank {rank}: unexpected {header}")
            self.received[step].append(zlib.crc32(body, zlib.crc32(json.dumps(header["which"]).encode())))
            self._steps[connection][1] += 1
            if step + 1 < len(PHASES):
                self._offer(connection)
                continue
            connection.send(encode({"bye": True}))
            self._selector.unregister(connection.socket)
            del self._steps[connection]


def _connect(host: str, port: int) -> socket.socket:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((host, port), timeout=60)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def main() -> None:
    endpoints = json.load(sys.stdin)
    allow_files(len(endpoints))
    ranks = LightRanks(endpoints)
    ranks.run()
    print(json.dumps(ranks.received))


if __name__ == "__main__":
    main()
