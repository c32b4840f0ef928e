"""Copies files of a checkpoint between places, over the ranks' own connections."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.layout import REPLICATED, file_names
from plsc.checkpoint.places import Places
from plsc.errors import CheckpointError
from plsc.files.atomic import whole_file
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import FileEntry, IncrementalHash
from plsc.parallel.file_service import FileServer, receive
from plsc.parallel.ranks import Ranks


@dataclass(frozen=True)
class Wanted:
    """A file that some places have, ``holders``, and that others, ``targets``, are to get: numbers of places."""

    name: str
    holders: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Transfer:
    """Rank ``source`` sends the file ``name`` to rank ``target``."""

    name: str
    source: int
    target: int


def wanted_by_a_save(places: Places, num_shards: int, world_size: int, named: bool) -> list[Wanted]:
    """What goes where after every rank has written its shard, and rank 0 the replicated tensors: these, and class rows
    that every rank holds alike, to every place; a shard to as many places after its own as there are replicas."""
    found, count = [], len(places.all)
    for name in [REPLICATED, *([CLASS_NAMES] if named else [])]:
        found.append(Wanted(name, (0,), tuple(range(1, count))))
    replicas = places.replicas if num_shards == world_size else count - 1
    for rank, name in enumerate(file_names(num_shards)[1:]):
        own = places.index(rank)
        found.append(Wanted(name, (own,), tuple((own + 1 + more) % count for more in range(replicas))))
    return found


def plan_rounds(places: Places, wanted: Sequence[Wanted]) -> list[list[Transfer]]:
    """The transfers, in rounds: of each file, every place that has it serves one other in a round, so that twice as
    many have it after each. The ranks of a place share its files."""
    rounds: list[list[Transfer]] = []
    for number, file in enumerate(wanted):
        have, left, turn = list(file.holders), list(file.targets), 0
        while left:
            served, left = left[: len(have)], left[len(have) :]
            rounds += [[]] if turn == len(rounds) else []
            for source, target in zip(have, served):
                ends = places.all[source].rank_for(number), places.all[target].rank_for(number)
                rounds[turn].append(Transfer(file.name, *ends))
            have, turn = have + served, turn + 1
    return rounds


def exchange(
    group: Ranks, places: Places, directory: str, files: Mapping[str, FileEntry], wanted: Sequence[Wanted]
) -> None:
    """Carry out ``plan_rounds`` in ``directory``, which has the same name in every place. All ranks call it.

    A file that arrives is compared with its entry in ``files`` and put in place when it is whole. Raises
    CheckpointError on every rank.
    """
    rounds = plan_rounds(places, wanted)
    if not rounds:
        return
    what = f"cannot copy files of {directory} between machines"
    serves = {transfer.name for turn in rounds for transfer in turn if transfer.source == group.rank}
    servers: list[FileServer] = []

    def open_server() -> list | None:
        if serves:
            paths = {name: os.path.join(directory, name) for name in serves}
            servers.append(FileServer(places.hosts[group.rank], places.ports, paths))
        return servers[0].address if servers else None

    try:
        addresses = on_all_ranks(group, what, open_server)
        for turn in rounds:
            mine = [transfer for transfer in turn if transfer.target == group.rank]

            def fetch(mine: list[Transfer] = mine) -> None:
                for each in mine:
                    _fetch(addresses[each.source], os.path.join(directory, each.name), files[each.name])

            on_all_ranks(group, what, fetch)
    finally:
        for server in servers:
            server.close()


def _fetch(address: list, path: str, expected: FileEntry) -> None:
    digest = IncrementalHash()
    with whole_file(path) as file:

        def write(data: memoryview) -> None:
            file.write(data)
            digest.add(data)

        receive(address, os.path.basename(path), write)
        if digest.entry() != expected:
            raise CheckpointError(f"{path}: what {address[0]} sent has another SHA-256 than the manifest says")
