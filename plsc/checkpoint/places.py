"""Places: which ranks see the same directory of a run. With one file system for all there is one place."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from plsc.checkpoint.layout import LOCK
from plsc.errors import CheckpointError
from plsc.parallel.environment import Environment
from plsc.parallel.ranks import Ranks

PROBE = ".plsc_place_"  # in the directory of a run, for a moment at its start
PROBE_SECONDS = 3600.0  # after which no run is still looking


@dataclass(frozen=True)
class Place:
    """Ranks, rising, that share a directory. ``where``: which one it is, "host:/path", for messages."""

    ranks: tuple[int, ...]
    where: str = ""

    @property
    def lowest(self) -> int:
        """The rank that does for its place what only one of its ranks may do."""
        return self.ranks[0]

    def rank_for(self, number: int) -> int:
        """The rank that handles file ``number``: the ranks of a place share the work."""
        return self.ranks[number % len(self.ranks)]


@dataclass(frozen=True)
class Places:
    """All places of a run, by their lowest ranks; empty: all ranks share one directory.

    hosts: the address of each rank for the others; ports: on which this rank may listen, None for any. replicas: on how
    many places besides its own each shard of a checkpoint is kept.
    """

    all: tuple[Place, ...] = ()
    hosts: tuple[str, ...] = ()
    ports: range | None = None
    replicas: int = 0

    @property
    def several(self) -> bool:
        return len(self.all) > 1

    def leads(self, rank: int) -> bool:
        """Whether ``rank`` is the lowest of its place."""
        return rank == (self.all[self.index(rank)].lowest if self.several else 0)

    def index(self, rank: int) -> int:
        """The number of the place of ``rank``."""
        return next(number for number, place in enumerate(self.all) if rank in place.ranks)

    def __str__(self) -> str:
        return "; ".join(f"{place.where}: rank(s) {', '.join(map(str, place.ranks))}" for place in self.all)


SHARED = Places()


def group_ranks(lowest_seen: Sequence[int]) -> tuple[Place, ...]:
    """The places, where rank r sees the files of rank ``lowest_seen[r]`` and of none below it.

    Raises CheckpointError where that is no partition: some rank sees another one that does not see itself there.
    """
    for rank, lowest in enumerate(lowest_seen):
        if lowest > rank or lowest_seen[lowest] != lowest:
            raise CheckpointError(
                f"model_save_dir: rank {rank} sees the files of rank {lowest}, which sees those of rank "
                f"{lowest_seen[lowest]}, and rank {rank} does not: one directory that the ranks see differently cannot "
                "hold a run; mount it alike everywhere"
            )
    members: dict[int, list[int]] = {}
    for rank, lowest in enumerate(lowest_seen):
        members.setdefault(lowest, []).append(rank)
    return tuple(Place(tuple(ranks)) for _, ranks in sorted(members.items()))


def find_places(run_dir: str, group: Ranks, env: Environment) -> Places:
    """The places of the directory ``run_dir``, which is created; SHARED where there is one. All ranks call it.

    Each rank writes a small file and looks for those of the others; all are gone when it returns. Raises
    CheckpointError, on every rank, where the directory cannot be written.
    """
    if group.world_size == 1:
        return SHARED
    token = secrets.token_hex(8)
    own, problem = _probe_path(run_dir, group.rank, token), None
    try:
        os.makedirs(run_dir, exist_ok=True)
        with open(own, "xb"):
            pass
    except OSError as error:
        problem = (
            f"model_save_dir={os.path.abspath(run_dir)!r}: cannot be written: {error.strerror}; make it writable or "
            "choose another"
        )
    where = f"{socket.gethostname()}:{os.path.abspath(run_dir)}"
    try:
        answers = group.all_gather([token, problem, where])
        _raise_first([answer[1] for answer in answers], group.rank)
        tokens = [answer[0] for answer in answers]
        found = group_ranks(group.all_gather(_lowest_seen(run_dir, tokens, group.rank)))
    finally:
        with contextlib.suppress(OSError):
            os.unlink(own)
    if len(found) == 1:
        return SHARED
    found = tuple(replace(place, where=answers[place.lowest][2]) for place in found)
    return Places(found, tuple(endpoint.rsplit(":", 1)[0] for endpoint in env.endpoints), env.ports)


def remove_probes(run_dir: str) -> None:
    """Remove what runs that were killed while they looked for their places have left, in a directory whose lock has
    just been taken. Another run that is starting, and will be refused, keeps its own."""
    now = os.stat(os.path.join(run_dir, LOCK)).st_mtime  # clocks of machines differ
    for name in os.listdir(run_dir):
        path = os.path.join(run_dir, name)
        with contextlib.suppress(OSError):
            if name.startswith(PROBE) and now - os.stat(path).st_mtime > PROBE_SECONDS:
                os.unlink(path)


def _raise_first(problems: Sequence[str | None], rank: int) -> None:
    if problems[rank]:
        raise CheckpointError(problems[rank])
    for other, problem in enumerate(problems):
        if problem:
            raise CheckpointError(f"rank {other}: {problem}")


def _lowest_seen(run_dir: str, tokens: Sequence[str], rank: int) -> int:
    """By name, not by listing the directory: network file systems may keep an older list for some seconds."""
    seen = (other for other in range(rank) if os.path.exists(_probe_path(run_dir, other, tokens[other])))
    return next(seen, rank)


def _probe_path(run_dir: str, rank: int, token: str) -> str:
    return os.path.join(run_dir, f"{PROBE}{rank}_{token}")
