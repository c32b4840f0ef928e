"""The checkpoint that a run goes on from, where each place has a part of its files.

It is found by contents: launchers number machines anew, so a place may hold shards that other ranks need now. What is
missing where it is needed is copied there from a place that has it.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable

from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.directory import prepare_dirs, publish_dir, write_manifest
from plsc.checkpoint.elsewhere import read_note, write_note
from plsc.checkpoint.exchange import Wanted, exchange
from plsc.checkpoint.find import latest
from plsc.checkpoint.layout import (
    MANIFEST,
    REPLICATED,
    WRITING,
    checkpoints_dir,
    damaged_dirs,
    shard_name,
    step_dirs,
    step_name,
    writing_dirs,
)
from plsc.checkpoint.manifest import Manifest, carries_manifest, manifest_of
from plsc.checkpoint.places import Places
from plsc.checkpoint.read import Damaged, verify_files
from plsc.checkpoint.retention import check_not_foreign, set_aside, set_newer_aside
from plsc.checkpoint.survey import Whole, look, shortened, survey
from plsc.errors import CheckpointError, ConfigError
from plsc.files import atomic, safe_open
from plsc.files.class_names import CLASS_NAMES
from plsc.parallel.ranks import Ranks
from plsc.parallel.shards import class_range, overlaps

log = logging.getLogger(__name__)


def newest(run_dir: str, group: Ranks, places: Places) -> str | None:
    """The newest checkpoint of a run, the same path on every rank, or None; all ranks call it.

    With one place: the newest complete one that rank 0 sees. With several: the newest whose files exist somewhere; it
    is put in place everywhere, at least by its manifest, and its hashes are not compared yet.
    """
    if not places.several:
        return on_all_ranks(group, _what(run_dir), lambda: latest(run_dir) if group.rank == 0 else None)[0]
    found = _find(run_dir, group, places)
    return None if found is None else _adopt(run_dir, group, places, found)[0]


def newest_intact_of_places(
    run_dir: str,
    group: Ranks,
    places: Places,
    needs: Callable[[Manifest, int], tuple[int, int]],
    replaced: bool = False,
) -> str | None:
    """As ``newest`` with several places, whose files all match their hashes and are, afterwards, where they are read:
    every rank finds the replicated tensors and the shards with the classes [first, last) = ``needs(manifest, rank)``.

    A damaged copy is set aside, and replaced by another one where there is one. A checkpoint of which some file has no
    intact copy is renamed to `damaged_step_...` everywhere. Raises CheckpointError on every rank where there are
    checkpoints and none is whole; or, where they are ``replaced`` by one from elsewhere, renames them as well.
    """
    while True:
        found = _find(run_dir, group, places)
        if found is None:
            what, left = _what(run_dir), set_newer_aside if replaced else _require_none
            on_all_ranks(group, what, functools.partial(left, run_dir) if places.leads(group.rank) else _nothing)
            return None
        path, manifest = _adopt(run_dir, group, places, found)
        intact = _intact(path, manifest, group, places, found)
        lost = [name for name, holders in intact.items() if not holders]
        if not lost:
            _fill(path, manifest, group, places, intact, needs)
            return path
        aside = on_all_ranks(group, _what(run_dir), lambda: set_aside(path) if places.leads(group.rank) else None)  # noqa: B023
        log.warning(
            "%s: no place has an intact copy of %s: this checkpoint is skipped for the one before and is now %s",
            path, shortened(lost), next(filter(None, aside)),
        )  # fmt: skip


def ranges_of(num_classes: int, world_size: int, model_parallel: bool) -> Callable[[Manifest, int], tuple[int, int]]:
    """``needs`` of ``newest_intact_of_places`` for a run that continues; nothing of a checkpoint that it refuses."""

    def needs(manifest: Manifest, rank: int) -> tuple[int, int]:
        if manifest.num_classes != num_classes:
            return 0, 0
        try:
            return class_range(num_classes, rank, world_size) if model_parallel else (0, num_classes)
        except ConfigError:
            return 0, 0

    return needs


def _nothing() -> None:
    pass


def _what(run_dir: str) -> str:
    return f"cannot continue in {run_dir}"


def _find(run_dir: str, group: Ranks, places: Places) -> Whole | None:
    answers = on_all_ranks(group, _what(run_dir), lambda: look(run_dir) if places.leads(group.rank) else None)
    try:
        found = survey([answers[place.lowest] for place in places.all], places.all)
    except CheckpointError as error:  # the same on every rank: they have the same answers
        raise CheckpointError(f"{_what(run_dir)}: {error}") from None
    for line in found.skipped:
        log.warning("checkpoint skipped: %s", line)
    return found.newest


def _adopt(run_dir: str, group: Ranks, places: Places, found: Whole) -> tuple[str, Manifest]:
    """Give the directories of ``found`` their name in every place, with the manifest where there is none, and set aside
    what is newer. Returns path and manifest."""
    path = os.path.join(checkpoints_dir(run_dir), step_name(found.step))
    source = min(found.names)

    def read() -> str | None:
        if group.rank != places.all[source].lowest:
            return None
        name = os.path.join(checkpoints_dir(run_dir), found.names[source], MANIFEST)
        return safe_open.read_bytes(name, safe_open.MANIFEST).decode()

    raw = next(filter(None, on_all_ranks(group, _what(run_dir), read))).encode()

    def put() -> None:
        if places.leads(group.rank):
            set_newer_aside(run_dir, found.step)
            _put_in_place(run_dir, path, found.names.get(places.index(group.rank)), raw)

    on_all_ranks(group, _what(run_dir), put)
    return path, manifest_of(raw, path)


def _put_in_place(run_dir: str, path: str, name: str | None, raw: bytes) -> None:
    if name == os.path.basename(path):
        return
    if os.path.lexists(path):
        check_not_foreign(path)
        log.warning("%s is another checkpoint than that of the other places, and is now %s", path, set_aside(path))
    if name is not None:
        atomic.rename(os.path.join(os.path.dirname(path), name), path)
        return
    aside = os.path.join(os.path.dirname(path), WRITING + os.path.basename(path))
    os.makedirs(run_dir, exist_ok=True)
    prepare_dirs(run_dir, path, aside)
    write_manifest(aside, raw)
    publish_dir(aside, path)


def _intact(path: str, manifest: Manifest, group: Ranks, places: Places, found: Whole) -> dict[str, tuple[int, ...]]:
    """The places with an intact copy of each file. Each place hashes its copies; damaged ones are set aside."""
    own = places.index(group.rank)
    mine = [name for name, holders in found.holders.items() if own in holders]
    ranks = places.all[own].ranks

    def look_at_files() -> list[str]:
        damaged = []
        for name in mine[ranks.index(group.rank) :: len(ranks)]:
            try:
                verify_files(path, manifest, [name])
            except Damaged as error:  # another error, such as a missing permission, says nothing about the contents
                aside = os.path.join(path, f"damaged_{name}")
                log.warning("%s; this copy is now %s", error, aside)
                atomic.rename(os.path.join(path, name), aside)
                damaged.append(name)
        return damaged

    answers = on_all_ranks(group, f"cannot open checkpoint {path}", look_at_files)
    damaged = {(name, places.index(rank)) for rank, names in enumerate(answers) for name in names}
    return {
        name: tuple(place for place in holders if (name, place) not in damaged)
        for name, holders in found.holders.items()
    }


def _fill(
    path: str,
    manifest: Manifest,
    group: Ranks,
    places: Places,
    intact: dict[str, tuple[int, ...]],
    needs: Callable[[Manifest, int], tuple[int, int]],
) -> None:
    """Copy to each place what its ranks read and it does not have."""
    needed = [_needed(manifest, [needs(manifest, rank) for rank in place.ranks]) for place in places.all]
    wanted = []
    for name, holders in intact.items():
        targets = tuple(place for place, names in enumerate(needed) if name in names and place not in holders)
        wanted.append(Wanted(name, holders, targets))
    exchange(group, places, path, manifest.files, wanted)
    copied = sorted({(file.name, target) for file in wanted for target in file.targets})
    if copied:
        size = sum(manifest.files[name].num_bytes for name, _ in copied)
        log.info("%s: %d file(s), %.1f MB, were copied to places that did not have them", path, len(copied), size / 1e6)

    def note() -> None:
        if places.leads(group.rank):
            own = places.index(group.rank)
            here = {file.name for file in wanted if own in (*file.holders, *file.targets)}
            others = {f.name: places.all[f.holders[0]].where for f in wanted if f.name not in here}
            if others != read_note(path):
                write_note(path, others)

    on_all_ranks(group, _what(path), note)


def _needed(manifest: Manifest, ranges: list[tuple[int, int]]) -> set[str]:
    names = {REPLICATED, CLASS_NAMES} & set(manifest.files)
    for first, last in ranges if manifest.num_shards else []:
        pieces = overlaps(manifest.num_classes, manifest.num_shards, first, last)
        names |= {shard_name(index, manifest.num_shards) for index, _, _ in pieces}
    return names


def _require_none(run_dir: str) -> None:
    finished = [one for one in writing_dirs(run_dir) if carries_manifest(one[1])]
    left = step_dirs(run_dir) + damaged_dirs(run_dir) + finished  # also those whose manifest cannot be read any more
    if not left:
        return
    path = max(left)[1]
    kept = read_note(path)
    where = f"; the run kept {shortened(kept)} in {', '.join(sorted(set(kept.values())))}" if kept else ""
    raise CheckpointError(
        f"none of its checkpoint(s) is whole in all places together, the newest is {path}{where}; start the machines "
        "that have the rest, choose another model_save_dir, or move them away to start over"
    )
