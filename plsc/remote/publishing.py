"""Upload of checkpoints and exported models, with checks.

The last file, a checkpoint's `manifest.json` or else an `upload.json`, is written after all other files have been read
back and compared. An incomplete copy lacks it.
"""

from __future__ import annotations

import functools
import glob
import os

from plsc import checkpoint
from plsc.checkpoint import layout
from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.find import completeness_problem
from plsc.checkpoint.manifest import carries_manifest
from plsc.config.urls import masked
from plsc.errors import CheckpointError
from plsc.files import safe_open
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import FileEntry
from plsc.remote.addresses import FETCHED, Run, save_url
from plsc.remote.source import UPLOADED, upload_list
from plsc.remote.stores import Store, open_store
from plsc.remote.transfer import measure_local, upload, upload_bytes, with_retries

PROBE = ".plsc_write_test"


def check_destination(run: Run) -> None:
    """Write and delete a small file at the address for results, to detect a wrong address before training.

    Every rank must call it. Raises CheckpointError on every rank; ConfigError if a driver is missing.
    """
    url = save_url(run.config)
    if url is None:
        return
    store = open_store(url, run.config)

    def probe() -> None:
        if run.group.rank == 0:
            upload_bytes(store, PROBE, b"PLSC can write here.\n")
            with_retries(store, f"{store.url}/{PROBE}", lambda: store.delete(PROBE))

    on_all_ranks(run.group, f"cannot write to {masked(url)}", probe)


def publish_checkpoints(run: Run) -> None:
    """Upload every complete checkpoint of the run that is not there yet. Every rank must call it. See `publish`."""
    if save_url(run.config) is None:
        return
    what, root = "cannot list the checkpoints to copy", os.path.abspath(run.config.model_save_dir)
    for path in on_all_ranks(run.group, what, lambda: _complete_checkpoints(run) if run.group.rank == 0 else [])[0]:
        publish(run, os.path.join(root, path))


def publish_save(run: Run, local_dir: str, removed: list[str]) -> bool:
    """Upload a checkpoint that was just saved, and delete those at the address that rank 0 has ``removed`` here.

    Every rank must call it. A failure does not end the training: the log says it, and the end of the run tries again.
    Returns, the same on every rank, whether it was done; otherwise ``removed`` are to be given again.
    """
    try:
        publish(run, local_dir)
        what = f"cannot delete old checkpoints of {masked(save_url(run.config) or '')}"
        on_all_ranks(run.group, what, lambda: _delete(run, removed) if run.group.rank == 0 else None)
    except CheckpointError as error:
        run.log.info(f"WARNING: {error}; the training goes on, and copies what is missing at its end")
        return False
    return True


def _delete(run: Run, removed: list[str]) -> None:
    for local_dir in removed:
        url = f"{(save_url(run.config) or '').rstrip('/')}/{_relative_path(run, local_dir)}"
        store = open_store(url, run.config)
        there = with_retries(store, store.url, store.files)  # also of a copy that was never complete
        own = {layout.MANIFEST_SUM, layout.REPLICATED, CLASS_NAMES}
        others = [name for name in there if name in own or layout.is_shard_name(name)]
        for name in [layout.MANIFEST, *others]:  # without the first it is no checkpoint any more
            with_retries(store, f"{store.url}/{name}", functools.partial(store.delete, name))


def publish(run: Run, local_dir: str) -> None:
    """Upload a checkpoint or another directory to the address for results; does nothing without an address.

    Its path relative to the address is that relative to `model_save_dir`. Every rank must call it; each file is copied
    by a rank that sees it. An existing equal checkpoint is kept, other contents of that name are replaced.
    Raises CheckpointError on every rank if any rank fails; local files are not changed.
    """
    base = save_url(run.config)
    if base is None:
        return
    group, url = run.group, f"{base.rstrip('/')}/{_relative_path(run, local_dir)}"
    what = f"cannot copy {local_dir} to {masked(url)}"
    store = open_store(url, run.config)
    found = on_all_ranks(group, what, lambda: _prepare(store, local_dir) if group.rank == 0 else None)[0]
    if found["done"]:
        run.log.info(f"{masked(url)} is already there")
        return
    files = {name: FileEntry(*entry) for name, entry in found["files"].items()}
    for turn in _turns(list(files), on_all_ranks(group, what, lambda: _seen_files(local_dir, files)), what):
        on_all_ranks(group, what, functools.partial(_upload, store, local_dir, turn.get(group.rank), files))
    on_all_ranks(group, what, lambda: _write_markers(store, local_dir, files) if group.rank == 0 else None)
    total = sum(entry.num_bytes for entry in files.values())
    run.log.info(
        f"copied {local_dir} to {masked(url)}: {len(files):,} files, {total / 1e6:,.1f} MB, read back and compared"
    )


def _turns(names: list[str], seen: list[list[str] | None], what: str) -> list[dict[int, str]]:
    """Which rank copies which file in each turn; ``seen``: the files that each rank sees, None for all.

    Raises CheckpointError, the same on every rank, for a file that nobody sees."""
    turns: list[dict[int, str]] = []
    load = [0] * len(seen)
    sets = [None if one is None else set(one) for one in seen]
    for name in names:
        helpers = [rank for rank, one in enumerate(sets) if one is None or name in one]
        if not helpers:
            raise CheckpointError(f"{what}: {name} is on the disk of no rank")
        rank = min(helpers, key=lambda one: (load[one], one))
        turns += [{}] if load[rank] == len(turns) else []
        turns[load[rank]][rank] = name
        load[rank] += 1
    return turns


def _complete_checkpoints(run: Run) -> list[str]:
    """The run's complete checkpoints, one or two levels below `model_save_dir`, except fetched, damaged
    and hidden ones, by their paths in it. With several places: those of which this one has its part."""
    root = os.path.abspath(run.config.model_save_dir)
    levels = [f"{glob.escape(root)}/{level}/{layout.MANIFEST}" for level in ("*", "*/*")]
    found = sorted(os.path.dirname(path) for level in levels for path in glob.glob(level))
    own = [path for path in found if os.path.relpath(path, root).split(os.sep)[0] != FETCHED]
    own = [path for path in own if not os.path.basename(path).startswith(layout.DAMAGED)]
    here = run.places.several
    return [os.path.relpath(path, root) for path in own if completeness_problem(path, here) is None]


def _relative_path(run: Run, local_dir: str) -> str:
    root, path = os.path.abspath(run.config.model_save_dir), os.path.abspath(local_dir)
    if path == root or not path.startswith(root + os.sep):
        raise CheckpointError(f"{local_dir}: only directories below model_save_dir {root} are copied")
    return os.path.relpath(path, root).replace(os.sep, "/")


def _prepare(store: Store, local_dir: str) -> dict:
    """Return {"done": already uploaded, "files": {name: [bytes, SHA-256]}}; delete the marker of a copy to replace."""
    if carries_manifest(local_dir):
        mark = layout.MANIFEST
        entries = checkpoint.read_manifest(local_dir).files
        if _is_uploaded(store, local_dir, entries):
            return {"done": True, "files": {}}
    else:
        mark = UPLOADED
        entries = {name: measure_local(os.path.join(local_dir, name)) for name in _list_files(local_dir)}
        if not entries:
            raise CheckpointError(f"{local_dir} has no files")
    with_retries(store, f"{store.url}/{mark}", lambda: store.delete(mark))
    return {"done": False, "files": {name: [entry.num_bytes, entry.sha256] for name, entry in entries.items()}}


def _is_uploaded(store: Store, local_dir: str, entries: dict[str, FileEntry]) -> bool:
    """Whether the same checkpoint is at the address, by its manifest and the sizes of its files."""
    there = with_retries(store, store.url, store.files)
    if {name: there.get(name) for name in entries} != {name: entry.num_bytes for name, entry in entries.items()}:
        return False
    for name in (layout.MANIFEST, layout.MANIFEST_SUM):
        if name not in there:
            return False
        data = with_retries(store, f"{store.url}/{name}", functools.partial(store.read, name))
        if data != _read_file(local_dir, name):
            return False
    return True


def _list_files(directory: str) -> list[str]:
    """The files below a directory, with slashes, except hidden and temporary ones."""
    found = []
    for place, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(".tmp"):
                found.append(os.path.relpath(os.path.join(place, name), directory).replace(os.sep, "/"))
    return [name for name in found if name != UPLOADED]


def _seen_files(local_dir: str, files: dict[str, FileEntry]) -> list[str] | None:
    """The files that this rank sees; None for all."""
    paths = {name: os.path.join(local_dir, name) for name in files}
    seen = [
        name for name, path in paths.items() if os.path.isfile(path) and os.path.getsize(path) == files[name].num_bytes
    ]
    return None if len(seen) == len(files) else seen


def _upload(store: Store, local_dir: str, name: str | None, files: dict[str, FileEntry]) -> None:
    if name is not None:
        upload(store, os.path.join(local_dir, name), name, files[name])


def _write_markers(store: Store, local_dir: str, files: dict[str, FileEntry]) -> None:
    """Write the files that mark the copy as complete, in their order."""
    if carries_manifest(local_dir):
        for name in (layout.MANIFEST_SUM, layout.MANIFEST):
            upload_bytes(store, name, _read_file(local_dir, name))
    else:
        upload_bytes(store, UPLOADED, upload_list(files))


def _read_file(local_dir: str, name: str) -> bytes:
    return safe_open.read_bytes(os.path.join(local_dir, name), safe_open.MANIFEST)
