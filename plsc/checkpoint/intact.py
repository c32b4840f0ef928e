"""Where a run goes on by itself: its newest checkpoint that is as it was written, to the bit."""

from __future__ import annotations

import logging
import os

from plsc.checkpoint.collective import describe, on_all_ranks
from plsc.checkpoint.find import latest, require_same_manifest
from plsc.checkpoint.layout import DAMAGED, REPLACED, checkpoints_dir, damaged_dirs, step_dirs
from plsc.checkpoint.manifest import carries_manifest, read_manifest
from plsc.checkpoint.read import Damaged, verify_files
from plsc.errors import CheckpointError
from plsc.files import atomic
from plsc.parallel.ranks import Ranks

log = logging.getLogger(__name__)


def newest_intact(run_dir: str, group: Ranks) -> str | None:
    """The newest checkpoint of which every file has the hash that its manifest says, or None where there is none.

    A newer one that is damaged is renamed to `damaged_step_...`, so that nothing takes it for the newest again, and
    named in a warning; one that a killed save had moved aside gets its name back. To be called by all ranks by whoever
    holds the run. Raises CheckpointError on every rank where
    there are checkpoints and none is whole: to begin anew then is for a person to decide.
    """
    what = f"cannot go on in {run_dir}"
    while True:
        path = on_all_ranks(group, what, lambda: latest(run_dir) if group.rank == 0 else None)[0]
        if path is None:
            on_all_ranks(group, what, lambda: _require_none(run_dir) if group.rank == 0 else None)
            return None
        require_same_manifest(group, what, path)  # before one is put aside for what is wrong with another
        damage = _damage(path, group)
        if damage is None:
            return on_all_ranks(group, what, lambda: _put_back(run_dir, path) if group.rank == 0 else None)[0]  # noqa: B023
        aside = on_all_ranks(group, what, lambda: _set_aside(run_dir, path) if group.rank == 0 else None)[0]  # noqa: B023
        log.warning("%s: this checkpoint is passed over for the one before and is now %s", damage, aside)


def restore_newest(run_dir: str, group: Ranks) -> None:
    """Give the newest complete checkpoint its name back, where a killed save had moved it aside: the next save would
    move it again, away from whoever goes on from it. To be called by all ranks by whoever holds the run."""

    def put_back() -> None:
        path = latest(run_dir) if group.rank == 0 else None
        if path is not None:
            _put_back(run_dir, path)

    on_all_ranks(group, f"cannot go on in {run_dir}", put_back)


def _damage(path: str, group: Ranks) -> str | None:
    """What is wrong inside of the files, each hashed by one rank. Other trouble raises CheckpointError on all ranks."""

    def look() -> str | None:
        manifest = read_manifest(path)
        try:
            verify_files(path, manifest, list(manifest.files)[group.rank :: group.world_size])
        except Damaged as error:
            return describe(error)
        return None

    return next(filter(None, on_all_ranks(group, f"cannot open checkpoint {path}", look)), None)


def _set_aside(run_dir: str, path: str) -> str:
    root = checkpoints_dir(run_dir)
    name = DAMAGED + "step_" + os.path.basename(path).rpartition("step_")[2]
    number, aside = 1, os.path.join(root, name)
    while os.path.lexists(aside):
        number += 1
        aside = os.path.join(root, f"{name}.{number}")
    atomic.rename(path, aside)
    return aside


def _put_back(run_dir: str, path: str) -> str:
    """The checkpoint in its place, whose path is returned, where a killed save had moved it aside."""
    root, name = os.path.split(path)
    final = os.path.join(root, name[len(REPLACED) :])
    if not name.startswith(REPLACED):
        return path
    if carries_manifest(final):  # not complete, else it would have been taken
        log.warning("%s is not complete, and is now %s", final, _set_aside(run_dir, final))
    if os.path.lexists(final):
        return path  # what is there is nobody's checkpoint, and is not ours to move
    atomic.rename(path, final)
    return final


def _require_none(run_dir: str) -> None:
    left = step_dirs(run_dir) + damaged_dirs(run_dir)
    if left:
        raise CheckpointError(
            f"none of its {len(left)} checkpoint(s) is complete and undamaged, the newest is {max(left)[1]}; choose "
            "another model_save_dir, or move them away to begin anew"
        )
