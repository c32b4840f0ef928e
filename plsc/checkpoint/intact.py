"""The checkpoint that `resume: auto` continues from: the newest one whose files match their hashes."""

from __future__ import annotations

import logging
import os

from plsc.checkpoint.collective import describe, on_all_ranks
from plsc.checkpoint.find import latest, require_same_manifest
from plsc.checkpoint.layout import REPLACED, damaged_dirs, step_dirs
from plsc.checkpoint.manifest import carries_manifest, read_manifest
from plsc.checkpoint.read import Damaged, verify_files
from plsc.checkpoint.retention import set_aside, set_newer_aside
from plsc.errors import CheckpointError
from plsc.files import atomic
from plsc.parallel.ranks import Ranks

log = logging.getLogger(__name__)


def newest_intact(run_dir: str, group: Ranks, replaced: bool = False) -> str | None:
    """The newest checkpoint whose files all match the hashes in its manifest, or None without checkpoints.

    A newer one that is damaged is renamed to `damaged_step_...` and logged as a warning; one that a killed save had
    renamed gets its name back. All ranks call it, while the run is locked. Raises CheckpointError on every rank where
    there are checkpoints and none is intact: starting over is then the user's decision. Where they are ``replaced`` by
    one from elsewhere, they are renamed as well, and None is returned.
    """
    what = f"cannot continue in {run_dir}"
    while True:
        path = on_all_ranks(group, what, lambda: latest(run_dir) if group.rank == 0 else None)[0]
        if path is None:
            left = set_newer_aside if replaced else _require_none
            on_all_ranks(group, what, lambda: left(run_dir) if group.rank == 0 else None)  # noqa: B023
            return None
        require_same_manifest(group, what, path)  # before one is renamed because another is damaged
        damage = _damage(path, group)
        if damage is None:
            return on_all_ranks(group, what, lambda: _put_back(run_dir, path) if group.rank == 0 else None)[0]  # noqa: B023
        aside = on_all_ranks(group, what, lambda: set_aside(path) if group.rank == 0 else None)[0]  # noqa: B023
        log.warning("%s: this checkpoint is skipped for the one before and is now %s", damage, aside)


def restore_newest(run_dir: str, group: Ranks) -> None:
    """Restore the name of the newest complete checkpoint, where a killed save had renamed it: the next save would
    rename it again while it is in use. All ranks call it, while the run is locked."""

    def put_back() -> None:
        path = latest(run_dir) if group.rank == 0 else None
        if path is not None:
            _put_back(run_dir, path)

    on_all_ranks(group, f"cannot continue in {run_dir}", put_back)


def _damage(path: str, group: Ranks) -> str | None:
    """The damage in the files, each hashed by one rank. Other errors raise CheckpointError on all ranks."""

    def look() -> str | None:
        manifest = read_manifest(path)
        try:
            verify_files(path, manifest, list(manifest.files)[group.rank :: group.world_size])
        except Damaged as error:
            return describe(error)
        return None

    return next(filter(None, on_all_ranks(group, f"cannot open checkpoint {path}", look)), None)


def _put_back(run_dir: str, path: str) -> str:
    """Restore the name of a checkpoint that a killed save had renamed; returns its path."""
    root, name = os.path.split(path)
    final = os.path.join(root, name[len(REPLACED) :])
    if not name.startswith(REPLACED):
        return path
    if carries_manifest(final):  # incomplete, otherwise it would have been chosen
        log.warning("%s is not complete, and is now %s", final, set_aside(final))
    if os.path.lexists(final):
        return path  # what is there is not a checkpoint, and is not renamed
    atomic.rename(path, final)
    return final


def _require_none(run_dir: str) -> None:
    left = step_dirs(run_dir) + damaged_dirs(run_dir)
    if left:
        raise CheckpointError(
            f"none of its {len(left)} checkpoint(s) is complete and undamaged, the newest is {max(left)[1]}; choose "
            "another model_save_dir, or move them away to start over"
        )
