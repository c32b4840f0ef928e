"""The directory of one checkpoint: made under a temporary name, filled, put in place by one rename."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from plsc.checkpoint import layout
from plsc.checkpoint.collective import describe
from plsc.checkpoint.manifest import Manifest, manifest_sum
from plsc.checkpoint.retention import aside_path, check_not_foreign, clean_up
from plsc.errors import CheckpointError
from plsc.files.atomic import put_directory, sync_dir
from plsc.files.hashes import write_new

log = logging.getLogger(__name__)

NOT_SEEN = (
    "the file system shows the ranks that share model_save_dir different contents; mount it without caching of "
    "directories, or set a model_save_dir on a disk of each machine"
)


def prepare_dirs(run_dir: str, final: str, aside: str) -> None:
    """Create the temporary directory ``aside`` of ``final``, marked as unfinished."""
    root = layout.checkpoints_dir(run_dir)
    os.makedirs(root, exist_ok=True)
    sync_dir(run_dir)
    clean_up(run_dir)
    check_not_foreign(final)
    check_not_foreign(aside)
    os.mkdir(aside)
    write_new(os.path.join(aside, layout.MARKER), b"")


def require_sizes(aside: str, manifest: Manifest, names: Iterable[str]) -> None:
    """Raise CheckpointError unless these files, written by several ranks, are there with their sizes."""
    for name in names:
        path, expected = os.path.join(aside, name), manifest.files[name].num_bytes
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if size != expected:
            raise CheckpointError(
                f"{path}: {size} of {expected} bytes are seen where it is put in place; {NOT_SEEN}"
            )


def write_manifest(aside: str, data: bytes) -> None:
    """Write the manifest into a directory whose other files are complete, and delete its marker."""
    write_new(os.path.join(aside, layout.MANIFEST), data)
    write_new(os.path.join(aside, layout.MANIFEST_SUM), manifest_sum(data))
    os.unlink(os.path.join(aside, layout.MARKER))


def publish_dir(aside: str, final: str) -> None:
    """Rename a complete directory to its final name."""
    replaced = aside_path(final, layout.REPLACED) if os.path.isdir(final) else None
    put_directory(aside, final, replaced)
    if replaced is not None:
        clean_up_or_warn(os.path.dirname(os.path.dirname(final)))


def clean_up_or_warn(run_dir: str) -> None:
    """Remove the leftovers of a failed save."""
    try:
        clean_up(run_dir)
    except OSError as error:
        log.warning("leftovers of a save stay until the next one: %s", describe(error))
