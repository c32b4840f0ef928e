"""Ranks as objects of one process: each with its own end of the control connections."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence

from plsc.parallel.channel import Channel
from plsc.parallel.control import Control
from plsc.parallel.environment import Environment
from plsc.parallel.hub import Hub
from plsc.parallel.spoke import Spoke
from tests.dist.launch import free_ports


def environments(world_size: int) -> list[Environment]:
    endpoints = tuple(f"127.0.0.1:{port}" for port in free_ports(world_size))
    return [Environment(rank, world_size, rank, world_size, endpoints) for rank in range(world_size)]


def control(env: Environment) -> Control:
    """One rank, which does not end this process where another one fails."""
    made = Hub(env) if env.rank == 0 else Spoke(env)
    made.ending.by_itself()
    return made


@contextlib.contextmanager
def controls(world_size: int) -> Iterator[list[Control]]:
    """All ranks; closed at the end, whatever has become of them."""
    made = [control(env) for env in environments(world_size)]
    try:
        yield made
    finally:
        leave(made)


def leave(made: Sequence[Control]) -> None:
    for each in reversed(made):
        each.close(0.0)


def together(work: Callable[[int], object], count: int) -> list:
    """[work(rank)] of threads; an error is a result."""
    results: list = [None] * count

    def run(rank: int) -> None:
        try:
            results[rank] = work(rank)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


def start(made: Sequence[Control]) -> None:
    """Return when all ranks have met."""
    found = together(lambda rank: gather(Channel(made[rank], "start"), rank), len(made))
    assert found == [list(range(len(made)))] * len(made)


def gather(channel: Channel, value: object, **options) -> list:
    return [json.loads(text) for text in channel.exchange(json.dumps(value).encode(), **options)]
