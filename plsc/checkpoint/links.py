"""Keeps a checkpoint in a second directory without writing its tensors again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

from plsc.checkpoint import layout
from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.directory import clean_up_or_warn, prepare_dirs, publish_dir, write_manifest
from plsc.checkpoint.elsewhere import copy_note, present
from plsc.checkpoint.manifest import read_manifest
from plsc.checkpoint.places import SHARED, Places
from plsc.checkpoint.read import verify_files
from plsc.errors import CheckpointError
from plsc.files import safe_open
from plsc.files.atomic import flush, sync_dir
from plsc.files.hashes import READ_BYTES
from plsc.parallel.ranks import Ranks


def link(path: str, run_dir: str, extra: dict[str, Any], group: Ranks, places: Places = SHARED) -> str:
    """Add the checkpoint ``path`` to ``run_dir`` and return its path there; every rank must call it. With several
    ``places`` each does so with its part of the files.

    Files of tensors are hard links, which are never written to, or copies where the file system has no links; the
    manifest differs only in ``extra``. Raises CheckpointError on every rank.
    """
    what, leads = f"cannot keep {path} in {run_dir}", places.leads(group.rank)
    publishes = leads and not places.several  # otherwise all places finish their files first
    try:
        name = on_all_ranks(group, what, lambda: _link(path, run_dir, extra, publishes) if leads else None)[0]
    except CheckpointError:
        if leads:
            clean_up_or_warn(run_dir)
        raise
    final = os.path.join(layout.checkpoints_dir(run_dir), name)
    if places.several:  # as in `save`
        on_all_ranks(group, what, lambda: publish_dir(_aside(final), final) if leads else None)
    return final


def _link(path: str, run_dir: str, extra: dict[str, Any], publishes: bool) -> str:
    manifest = read_manifest(path)
    names = present(path, manifest)
    verify_files(path, manifest, names, hashes=False)
    final = os.path.join(layout.checkpoints_dir(run_dir), layout.step_name(manifest.step))
    aside = _aside(final)
    os.makedirs(run_dir, exist_ok=True)
    prepare_dirs(run_dir, final, aside)
    for file in names:
        _link_or_copy(os.path.join(path, file), os.path.join(aside, file))
    copy_note(path, aside)
    write_manifest(aside, replace(manifest, extra=extra).to_bytes())
    if publishes:
        publish_dir(aside, final)
    else:
        sync_dir(aside)  # before another place deletes what this replaces
    return os.path.basename(final)


def _aside(final: str) -> str:
    root, name = os.path.split(final)
    return os.path.join(root, layout.WRITING + name)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # FAT, some network file systems, too many links
        with safe_open.open_bytes(source, safe_open.TENSORS) as stored, open(target, "xb") as copy:
            shutil.copyfileobj(stored, copy, READ_BYTES)
            flush(copy)
