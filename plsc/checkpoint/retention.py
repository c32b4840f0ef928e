"""Deletes old checkpoints, and the leftovers of a killed save or deletion."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable

from plsc.checkpoint.collective import describe
from plsc.checkpoint.find import completeness_problem
from plsc.checkpoint.layout import (
    DAMAGED,
    MANIFEST,
    MARKER,
    REMOVED,
    REPLACED,
    WRITING,
    aside_dirs,
    checkpoints_dir,
    step_dirs,
)
from plsc.checkpoint.manifest import carries_manifest
from plsc.checkpoint.places import SHARED, Places
from plsc.errors import CheckpointError
from plsc.files import atomic
from plsc.parallel.ranks import Ranks

log = logging.getLogger(__name__)


def remove_old(
    run_dir: str, keep: int, group: Ranks, protect: Iterable[str] = (), places: Places = SHARED
) -> list[str]:
    """Delete the checkpoints of a run older than its `keep` newest complete ones; returns the deleted paths.

    Acts on rank 0 only, or on the lowest rank of each of several `places`; call it after `save` has returned. keep <= 0
    keeps all. Never touches `protect` (such as the checkpoint that the run was started from), links, or directories
    without our manifest. A directory is renamed before anything in it is deleted, so that a partly deleted one is never
    taken for a checkpoint. What cannot be deleted is logged as a warning and does not stop the run.
    """
    if keep <= 0 or not places.leads(group.rank):
        return []
    safe = {os.path.realpath(path) for path in protect}
    removed = []
    complete = 0
    for _, path in reversed(step_dirs(run_dir)):
        if complete >= keep and _is_ours(path) and os.path.realpath(path) not in safe:
            try:
                _remove(path)
            except OSError as error:
                log.warning("old checkpoint %s not deleted: %s", path, describe(error))
            else:
                removed.append(path)
        elif complete < keep and completeness_problem(path, here=True) is None:
            complete += 1
    return removed


def clean_up(run_dir: str) -> None:
    """Complete or undo what a killed save or deletion left: no `.tmp_`, `.removed_`, `.replaced_` remains.

    Only directories that carry our marker or manifest, or nothing at all, are deleted; a replaced checkpoint whose
    successor was not completed is restored. Must not run during a save. Raises OSError.
    """
    root = checkpoints_dir(run_dir)
    for path in aside_dirs(root):
        name = os.path.basename(path)
        if name.startswith(REPLACED):
            final = os.path.join(root, name[len(REPLACED) :])
            if completeness_problem(path, here=True) is None and completeness_problem(final, here=True):
                if not os.path.lexists(final):
                    atomic.rename(path, final)
                continue
        if _is_ours(path) or _is_empty(path):
            _delete(path)


def set_aside(path: str) -> str:
    """Rename a checkpoint to `damaged_step_...`, with a number where that is taken; returns its path."""
    root, base = os.path.split(path)
    name = DAMAGED + "step_" + base.rpartition("step_")[2]
    number, aside = 1, os.path.join(root, name)
    while os.path.lexists(aside):
        number += 1
        aside = os.path.join(root, f"{name}.{number}")
    atomic.rename(path, aside)
    return aside


def set_newer_aside(run_dir: str, step: int = -1) -> None:
    """Rename the checkpoints after ``step``, which are not whole: they would be taken for checkpoints."""
    for newer, path in step_dirs(run_dir):
        if newer > step and carries_manifest(path):
            log.warning("%s is newer and not whole, and is now %s", path, set_aside(path))


def aside_path(path: str, prefix: str) -> str:
    """The path with `prefix` before the name; an earlier leftover of ours there is deleted. Raises OSError."""
    root, name = os.path.split(path)
    aside = os.path.join(root, prefix + name)
    if os.path.isdir(aside) and _is_ours(aside):
        _delete(aside)
    return aside


def check_not_foreign(path: str) -> None:
    """Raise CheckpointError where something that is not a checkpoint has the name that a save needs."""
    if os.path.lexists(path) and not _is_ours(path) and not _is_empty(path):
        raise CheckpointError(f"{path} exists and is not a checkpoint of PLSC; move it away or change model_save_dir")


def _remove(path: str) -> None:
    aside = aside_path(path, REMOVED)
    atomic.rename(path, aside)
    _delete(aside)


def _delete(path: str) -> None:
    """Delete a directory, its marker and manifest last: after a kill in between it is still recognised as ours."""
    last = [MARKER, MANIFEST]
    for name in sorted(os.listdir(path), key=lambda name: last.index(name) if name in last else -1):
        inner = os.path.join(path, name)
        if os.path.isdir(inner) and not os.path.islink(inner):
            shutil.rmtree(inner)
        else:
            os.unlink(inner)
    os.rmdir(path)


def _is_ours(path: str) -> bool:
    if os.path.islink(path) or not os.path.isdir(path):
        return False
    in_progress = os.path.basename(path).startswith(WRITING) and os.path.isfile(os.path.join(path, MARKER))
    return in_progress or carries_manifest(path)


def _is_empty(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path)
