"""Download of a checkpoint or an exported model, once per machine and atomic."""

from __future__ import annotations

import functools
import glob
import logging
import os
import re
import secrets
import shutil
from typing import Any

from plsc.checkpoint import layout
from plsc.checkpoint.collective import on_all_ranks
from plsc.config.urls import is_url, masked
from plsc.errors import CheckpointError
from plsc.files.atomic import put_directory
from plsc.remote.addresses import FETCHED, Run, save_url, start_url, uploads_saves
from plsc.remote.source import UPLOADED, Source, read_source
from plsc.remote.stores import Store, open_store
from plsc.remote.transfer import measure_local, with_retries

log = logging.getLogger(__name__)

PART = ".part_"  # suffix of an incomplete copy

_STEP = re.compile(rf"({layout.CHECKPOINTS}/step_(\d{{8,}}))/{layout.MANIFEST}")


def fetch_initial_checkpoint(run: Run, own: str | None, resumes: bool = False) -> str:
    """Return the local directory to start from: `checkpoint_dir`, or a copy if it is an address; "" for none.

    own: the checkpoint in `model_save_dir` with which the run continues; it takes precedence, and nothing is copied.
    resumes: `resume: auto`, which also looks where the run copies its saves to (remote.upload).
    """
    url = start_url(run.config)
    if url is None:
        copies = resumes and not own and newest_copy(run) is not None
        return fetch_checkpoint(run, save_url(run.config) or "") if copies else run.config.checkpoint_dir
    return "" if own else fetch_checkpoint(run, url)


def newest_copy(run: Run) -> int | None:
    """The newest step that the run itself may have copied (remote.upload) and, with `resume: auto`, goes on from where
    it has no checkpoint here; None if there is none, or another start is set. Every rank must call it."""
    url = save_url(run.config)
    if url is None or not uploads_saves(run.config) or run.config.checkpoint_dir or start_url(run.config):
        return None
    store = open_store(url, run.config)

    def look() -> int | None:
        found: dict[str, int] = with_retries(store, store.url, store.files) if run.group.rank == 0 else {}
        return max((int(match.group(2)) for match in map(_STEP.fullmatch, found) if match), default=None)

    return on_all_ranks(run.group, f"cannot look for checkpoints at {masked(url)}", look)[0]


def warn_of_newer_copies(run: Run, step: int) -> None:
    """Say where the address for results has later steps than ``step``, at which a run starts. All ranks call it."""
    newest = newest_copy(run)
    if newest is not None and newest > step:
        run.log.info(
            f"WARNING: {masked(save_url(run.config) or '')} holds step {newest:,}, of another run or of an earlier "
            f"start on other disks; this run starts at step {step:,} and replaces what is there step by step. To go "
            "on from there, stop it, move the checkpoints in model_save_dir away and set resume: auto; to keep both, "
            "set another remote.save_url"
        )


def fetch_checkpoint(run: Run, url: str) -> str:
    """Download a checkpoint, the newest complete one of a run, or an exported model; return its local directory.

    Every rank must call it. The first rank of each machine, or of each place, copies, the others wait. The copy is
    `<model_save_dir>/fetched/<name>_<hash of its list of files>`, or `checkpoint_dir` if the source is PLSC
    0.x's fs_checkpoint_dir. An existing copy is checked and reused.
    Raises CheckpointError on every rank if any rank fails; ConfigError if a driver is missing.
    """
    what = f"cannot fetch checkpoint {masked(url)}"
    store = open_store(url, run.config)
    found = on_all_ranks(run.group, what, lambda: _find(store) if run.group.rank == 0 else None)[0]
    source = Source(store, found["prefix"], found["markers"])
    target = _local_directory(run, source)
    part = f"{target}{PART}{found['nonce']}"
    is_copier = run.places.leads(run.group.rank) if run.places.several else run.env.local_rank == 0
    copying = on_all_ranks(run.group, what, lambda: is_copier and _start_copy(source, target, part))
    is_copying = copying[run.group.rank]
    try:
        if any(copying):
            run.log.info(f"copying {masked(source.url)} to {target}")
            for name in source.entries():  # one collective per file: no rank waits longer than for one file
                on_all_ranks(
                    run.group, what, functools.partial(source.copy, name, part) if is_copying else lambda: None
                )
            on_all_ranks(run.group, what, lambda: _finish_copy(source, part, target) if is_copying else None)
        on_all_ranks(run.group, what, lambda: _require_visible(source, target))
    finally:
        if is_copying:
            shutil.rmtree(part, ignore_errors=True)  # it exists only after an error
    return target


def _find(store: Store) -> dict[str, Any]:
    """Find a checkpoint, an export, or the newest complete checkpoint of a run at an address. Returns JSON data."""
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
            log.warning("checkpoint skipped: %s", error)
            problems.append(str(error))
        else:
            return {"prefix": prefix, "markers": source.markers, "nonce": secrets.token_hex(8)}
    raise CheckpointError(
        problems[0]
        if problems
        else f"found no checkpoint (no {layout.MANIFEST}), no directory of a run "
        f"(no {layout.CHECKPOINTS}/step_.../{layout.MANIFEST}) and no exported model (no {UPLOADED})"
    )


def _local_directory(run: Run, source: Source) -> str:
    own = run.config.checkpoint_dir
    if own and not is_url(own):
        return os.path.abspath(own)
    return os.path.join(run.config.model_save_dir, FETCHED, source.name)  # of the same name on every rank


def _start_copy(source: Source, target: str, part: str) -> bool:
    """Whether this rank copies: False if the copy exists, or if another machine copies to the same disk."""
    if os.path.isdir(target) and os.listdir(target):
        _require_same(source, target)
        return False
    os.makedirs(os.path.dirname(part), exist_ok=True)
    if os.path.basename(os.path.dirname(target)) == FETCHED:  # our own directory: remove the leftovers of killed runs
        for leftover in glob.glob(glob.escape(target + PART) + "*"):
            if leftover != part:
                shutil.rmtree(leftover, ignore_errors=True)
    try:
        os.mkdir(part)
    except FileExistsError:  # the name is unique to this start
        return False
    return True


def _require_same(source: Source, target: str) -> None:
    """Raise CheckpointError unless `target` is a complete copy of the source."""
    if not source.has_markers(target):
        raise CheckpointError(f"{target} has other contents; choose another directory or empty it")
    for name, entry in source.entries().items():
        path = os.path.join(target, name)
        if measure_local(path) != entry:
            raise CheckpointError(f"{path}: damaged, its SHA-256 differs; remove {target} to copy it again")


def _finish_copy(source: Source, part: str, target: str) -> None:
    """Write the markers, then rename the directory."""
    source.write_markers(part)
    put_directory(part, target)


def _require_visible(source: Source, target: str) -> None:
    if not source.has_markers(target):
        raise CheckpointError(
            f"{target}: not found; the first rank of each machine copies, do all ranks of the machine see its disk?"
        )
