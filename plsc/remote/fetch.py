"""From an address to this machine: a checkpoint or an exported net, once per machine, visible only when whole."""

from __future__ import annotations

import functools
import glob
import logging
import os
import re
import secrets
import shutil
from typing import Any

from plsc import checkpoint
from plsc.checkpoint import layout
from plsc.checkpoint.collective import on_all_ranks
from plsc.config.urls import is_url, masked
from plsc.errors import CheckpointError
from plsc.files.atomic import put_directory
from plsc.remote.addresses import FETCHED, Run, start_url
from plsc.remote.source import UPLOADED, Source, read_source
from plsc.remote.stores import Store, open_store
from plsc.remote.transfer import measure_local, with_retries

log = logging.getLogger(__name__)

PART = ".part_"  # a copy that is not complete

_STEP = re.compile(rf"({layout.CHECKPOINTS}/step_(\d{{8,}}))/{layout.MANIFEST}")


def fetch_initial_checkpoint(run: Run, continues: bool) -> str:
    """The directory on this machine that the run starts from, "" for none: `checkpoint_dir`, or a copy of what lies at
    its address.

    `continues`: with `resume: auto` a checkpoint in `model_save_dir` comes first, and nothing is copied.
    """
    url = start_url(run.config)
    if url is None:
        return run.config.checkpoint_dir or ""
    if continues and run.config.resume == "auto":
        own = run.group.all_gather(checkpoint.latest(run.config.model_save_dir) if run.group.rank == 0 else None)[0]
        if own is not None:
            return ""
    return fetch_checkpoint(run, url)


def fetch_checkpoint(run: Run, url: str) -> str:
    """Copy a checkpoint, the newest complete one of a run, or an exported net; returns its directory on this machine.

    Every rank must call it. The first rank of each machine copies, the others wait. The copy is
    `<model_save_dir>/fetched/<name>_<hash of its list of files>`, or `checkpoint_dir` where PLSC 0.x's
    fs_checkpoint_dir names the source and checkpoint_dir the place; one that is there is checked and used again.
    Raises CheckpointError on every rank when any of them fails; ConfigError where a driver is missing.
    """
    what = f"cannot fetch checkpoint {masked(url)}"
    store = open_store(url, run.config)
    found = on_all_ranks(run.group, what, lambda: _find(store) if run.group.rank == 0 else None)[0]
    source = Source(store, found["prefix"], found["markers"])
    target = _local_directory(run, source)
    part = f"{target}{PART}{found['nonce']}"
    is_copier = run.env.local_rank == 0
    copying = on_all_ranks(run.group, what, lambda: is_copier and _start_copy(source, target, part))
    is_copying = copying[run.group.rank]
    try:
        if any(copying):
            run.log.info(f"copying {masked(source.url)} to {target}")
            for name in source.entries():  # a step for each file: nobody waits longer than one file takes
                on_all_ranks(
                    run.group, what, functools.partial(source.copy, name, part) if is_copying else lambda: None
                )
            on_all_ranks(run.group, what, lambda: _finish_copy(source, part, target) if is_copying else None)
        on_all_ranks(run.group, what, lambda: _require_visible(source, target))
    finally:
        if is_copying:
            shutil.rmtree(part, ignore_errors=True)  # gone by now, unless something failed
    return target


def _find(store: Store) -> dict[str, Any]:
    """What an address means, as JSON data: a checkpoint, an export, or the newest complete checkpoint of a run."""
    files = with_retries(store, store.url, store.files)
    if layout.MANIFEST in files or UPLOADED in files:
        prefixes = [""]
    else:
        steps = [match for match in map(_STEP.fullmatch, files) if match]
        prefixes = [f"{match.group(1)}/" for match in sorted(steps, key=lambda match: -int(match.group(2)))]
    problems = []
    for prefix in prefixes:
        try:
            source = read_source(store, prefix, files)
        except CheckpointError as error:
            log.warning("checkpoint passed over: %s", error)
            problems.append(str(error))
        else:
            return {"prefix": prefix, "markers": source.markers, "nonce": secrets.token_hex(8)}
    raise CheckpointError(
        problems[0]
        if problems
        else f"nothing there is a checkpoint (no {layout.MANIFEST}), the directory of a run "
        f"(no {layout.CHECKPOINTS}/step_.../{layout.MANIFEST}) or an exported net (no {UPLOADED})"
    )


def _local_directory(run: Run, source: Source) -> str:
    own = run.config.checkpoint_dir
    if own and not is_url(own):
        return os.path.abspath(own)
    return os.path.join(os.path.abspath(run.config.model_save_dir), FETCHED, source.name)


def _start_copy(source: Source, target: str, part: str) -> bool:
    """Whether this rank copies: not where the copy is there, nor where another machine copies to the same disk."""
    if os.path.isdir(target) and os.listdir(target):
        _require_same(source, target)
        return False
    os.makedirs(os.path.dirname(part), exist_ok=True)
    if os.path.basename(os.path.dirname(target)) == FETCHED:  # ours: what a killed start left goes
        for leftover in glob.glob(glob.escape(target + PART) + "*"):
            if leftover != part:
                shutil.rmtree(leftover, ignore_errors=True)
    try:
        os.mkdir(part)
    except FileExistsError:  # the name is of this start alone
        return False
    return True


def _require_same(source: Source, target: str) -> None:
    """Raise CheckpointError unless `target` is a whole copy of the source."""
    if not source.has_markers(target):
        raise CheckpointError(f"{target} holds something else; choose another directory or empty it")
    for name, entry in source.entries().items():
        path = os.path.join(target, name)
        if measure_local(path) != entry:
            raise CheckpointError(f"{path}: damaged, its SHA-256 differs; remove {target} to have it copied again")


def _finish_copy(source: Source, part: str, target: str) -> None:
    """What makes it complete, then one rename."""
    source.write_markers(part)
    put_directory(part, target)


def _require_visible(source: Source, target: str) -> None:
    if not source.has_markers(target):
        raise CheckpointError(f"{target}: not there; the first rank of each machine copies, is its disk seen by all?")
