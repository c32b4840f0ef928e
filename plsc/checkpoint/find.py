"""Finding a checkpoint: a directory, or the newest complete one of a run."""

from __future__ import annotations

import logging
import os

from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.elsewhere import present
from plsc.checkpoint.layout import CHECKPOINTS, MANIFEST, replaced_dirs, step_dirs
from plsc.checkpoint.manifest import Manifest, read_manifest
from plsc.checkpoint.read import NOTHING_EXPECTED, Expected, check_fits, verify_files
from plsc.errors import CheckpointError
from plsc.files.hashes import hash_file
from plsc.parallel.ranks import Ranks

log = logging.getLogger(__name__)


def open_checkpoint(
    path: str, group: Ranks, expected: Expected = NOTHING_EXPECTED, verified: bool = False
) -> tuple[str, Manifest]:
    """(checkpoint directory, manifest) on every rank, checked against what the run expects. All ranks call it.

    `path` as in `resolve`, decided by rank 0. Every file is hashed by one of the ranks, unless the hashes were
    `verified` before. The ranks compare their manifests: on local disks they may hold different checkpoints of the same
    name. An error on one rank raises CheckpointError on all.
    """
    what = f"cannot open checkpoint {path}"
    found = on_all_ranks(group, what, lambda: resolve(path) if group.rank == 0 else None)[0]

    def read_and_compare() -> None:
        check_fits(found, read_manifest(found), expected)

    on_all_ranks(group, what, read_and_compare)
    require_same_manifest(group, what, found)
    manifest = read_manifest(found)
    mine = list(manifest.files)[group.rank :: group.world_size]
    if not verified:
        on_all_ranks(group, what, lambda: verify_files(found, manifest, mine))
    return found, manifest


def require_same_manifest(group: Ranks, what: str, path: str) -> None:
    """Raise CheckpointError on every rank where the ranks do not read the same manifest in `path`."""

    def look() -> list[str]:
        return [hash_file(os.path.join(path, MANIFEST)), os.path.abspath(path)]

    found = on_all_ranks(group, what, look)
    others = [rank for rank, (digest, _) in enumerate(found) if digest != found[0][0]]
    if others:
        raise CheckpointError(
            f"{what}: {found[others[0]][1]} of rank(s) {', '.join(map(str, others))} is another checkpoint than "
            f"{found[0][1]} of rank 0; all ranks must see the same files: share the directory, or copy one everywhere"
        )


def completeness_problem(path: str, here: bool = False) -> str | None:
    """Why `path` is not a complete checkpoint, or None. Checks the manifest and the sizes, not the hashes.

    here: without the files that the run kept on the disks of other machines (plsc.checkpoint.elsewhere).
    """
    try:
        manifest = read_manifest(path)
        verify_files(path, manifest, present(path, manifest) if here else None, hashes=False)
    except CheckpointError as error:
        return str(error)
    return None


def latest(run_dir: str) -> str | None:
    """The newest complete checkpoint of a run, or None. Newer incomplete ones are logged as warnings.

    Raises CheckpointError where the newest one is complete with files that are on the disks of other machines.
    """
    # A save that replaces a step renames the older one for a moment; a kill at that time leaves it there.
    for _, path in sorted(step_dirs(run_dir) + replaced_dirs(run_dir), key=_by_age, reverse=True):
        reason = completeness_problem(path)
        if reason is None:
            return path
        if completeness_problem(path, here=True) is None:  # an older one in its place would be a surprise
            raise CheckpointError(reason)
        log.warning("checkpoint skipped: %s", reason)
    return None


def resolve(path: str) -> str:
    """The checkpoint directory of `path`: itself, or the newest complete checkpoint of a run's directory.

    Raises CheckpointError if there is none.
    """
    if not os.path.isdir(path):
        raise CheckpointError(f"{path}: no such directory; give a checkpoint or the directory of a run")
    if os.path.exists(os.path.join(path, MANIFEST)):
        return path
    if not os.path.isdir(os.path.join(path, CHECKPOINTS)):
        raise CheckpointError(
            f"{path}: neither a checkpoint (no {MANIFEST}) nor the directory of a run (no {CHECKPOINTS}/)"
        )
    found = latest(path)
    if found is None:
        raise CheckpointError(f"{os.path.join(path, CHECKPOINTS)}: no complete checkpoint in it")
    return found


def _by_age(found: tuple[int, str]) -> tuple[int, bool]:
    step, path = found
    return step, os.path.basename(path).startswith("step_")  # of one step, the one in place comes first
