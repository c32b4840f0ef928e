"""Several places on one machine: ranks as threads, each with the directory of its place."""

from __future__ import annotations

from plsc.checkpoint import ArrayShard, Places, RankTensors, newest_intact_of_places, ranges_of, save
from plsc.checkpoint.places import Place
from plsc.parallel.shards import class_range
from tests.checkpoint.checkpoint_kit import class_arrays, meta_for, on_ranks, replicated_arrays


def places_of(*ranks: tuple[int, ...], replicas: int = 0) -> Places:
    """places_of((0, 1), (2,)): two places, named d0 and d1."""
    number = sum(map(len, ranks))
    return Places(tuple(Place(each, f"d{i}") for i, each in enumerate(ranks)), ("",) * number, None, replicas)


def values(results: list) -> list:
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def disk(root, places: Places, rank: int, disks=None) -> str:
    """The run's directory of a rank. disks: which disk a place has, for places that are numbered anew."""
    place = places.index(rank)
    return str(root / f"disk{place if disks is None else disks[place]}" / "run")


def save_in(root, step: int, num_classes: int, places: Places, salt=0, shards: int | None = None) -> list:
    """Save the known checkpoint of the kit; shards: 1 for the rows of all classes on every rank."""
    whole, world_size = class_arrays(num_classes, salt), len(places.hosts)
    shards = world_size if shards is None else shards

    def work(group):
        shard = None
        if group.rank < shards:
            first, last = class_range(num_classes, group.rank, shards)
            shard = ArrayShard({name: array[first:last] for name, array in whole.items()}, block_rows=2)
        main = group.rank == 0
        names = [f"n{i}" for i in range(num_classes)]
        arrays, meta = (replicated_arrays(salt), meta_for(num_classes, class_names=names)) if main else (None, {})
        run_dir = disk(root, places, group.rank)
        return save(run_dir, step, RankTensors(arrays, shard), meta, group, places)

    return on_ranks(len(places.hosts), work)


def resume_in(root, num_classes: int, places: Places, disks=None, model_parallel=True) -> list:
    """The path of the checkpoint that each rank goes on from, or its error."""
    needs = ranges_of(num_classes, len(places.hosts), model_parallel)

    def work(group):
        return newest_intact_of_places(disk(root, places, group.rank, disks), group, places, needs)

    return on_ranks(len(places.hosts), work)
