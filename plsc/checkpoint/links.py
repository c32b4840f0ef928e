"""Keeps a checkpoint in a second directory without writing its tensors again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

from plsc.checkpoint import layout
from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.manifest import read_manifest
from plsc.checkpoint.read import verify_files
from plsc.checkpoint.write import clean_up_or_warn, prepare_dirs, publish_dir, write_manifest
from plsc.errors import CheckpointError
from plsc.files import safe_open
from plsc.files.atomic import flush
from plsc.files.hashes import READ_BYTES
from plsc.parallel.ranks import Ranks


def link(path: str, run_dir: str, extra: dict[str, Any], group: Ranks) -> str:
    """Add the checkpoint ``path`` to ``run_dir`` and return its path there; every rank must call it.

    Files of tensors are hard links, which are never written to, or copies where the file system has no links; the
    manifest differs only in ``extra``. Raises CheckpointError on every rank.
    """
    try:
        what = f"cannot keep {path} in {run_dir}"
        return on_all_ranks(group, what, lambda: _link(path, run_dir, extra) if group.rank == 0 else None)[0]
    except CheckpointError:
        if group.rank == 0:
            clean_up_or_warn(run_dir)
        raise


def _link(path: str, run_dir: str, extra: dict[str, Any]) -> str:
    manifest = read_manifest(path)
    verify_files(path, manifest, hashes=False)
    root, name = layout.checkpoints_dir(run_dir), layout.step_name(manifest.step)
    final, aside = os.path.join(root, name), os.path.join(root, layout.WRITING + name)
    os.makedirs(run_dir, exist_ok=True)
    prepare_dirs(run_dir, final, aside)
    for file in manifest.files:
        _link_or_copy(os.path.join(path, file), os.path.join(aside, file))
    write_manifest(aside, replace(manifest, extra=extra))
    publish_dir(aside, final)
    return final


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # FAT, some network file systems, too many links
        with safe_open.open_bytes(source, safe_open.TENSORS) as stored, open(target, "xb") as copy:
            shutil.copyfileobj(stored, copy, READ_BYTES)
            flush(copy)
