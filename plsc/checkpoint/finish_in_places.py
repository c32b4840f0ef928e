"""The first of the two phases of a save in several places: every place finishes its files."""

from __future__ import annotations

from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.directory import require_sizes, write_manifest
from plsc.checkpoint.elsewhere import write_note
from plsc.checkpoint.exchange import exchange, wanted_by_a_save
from plsc.checkpoint.manifest import manifest_of
from plsc.checkpoint.places import Places
from plsc.files.atomic import sync_dir
from plsc.files.class_names import CLASS_NAMES
from plsc.parallel.ranks import Ranks


def finish_in_places(group: Ranks, places: Places, aside: str, manifest_bytes: bytes) -> None:
    """Complete the directory ``aside`` of each place: copies, the note, the manifest. Every rank has written its shard
    and rank 0 the replicated tensors. Raises CheckpointError on every rank."""
    manifest = manifest_of(manifest_bytes, aside)
    wanted = wanted_by_a_save(places, manifest.num_shards, group.world_size, CLASS_NAMES in manifest.files)
    exchange(group, places, aside, manifest.files, wanted)

    def complete() -> None:
        if not places.leads(group.rank):
            return
        own = places.index(group.rank)
        here = {file.name for file in wanted if own in (*file.holders, *file.targets)}
        require_sizes(aside, manifest, here)
        write_note(aside, {f.name: places.all[f.holders[0]].where for f in wanted if f.name not in here})
        write_manifest(aside, manifest_bytes)
        sync_dir(aside)  # before another place deletes what this replaces

    on_all_ranks(group, f"cannot finish {aside}", complete)
