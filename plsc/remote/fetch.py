"""A checkpoint from an address to this machine: once per machine, checked, and visible only when it is whole."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

from plsc import checkpoint
from plsc.checkpoint import layout
from plsc.checkpoint.files import sync_dir, write_bytes
from plsc.checkpoint.manifest import Manifest
from plsc.checkpoint.together import together
from plsc.config.urls import is_url, masked
from plsc.errors import CheckpointError
from plsc.remote.places import Run, start_url
from plsc.remote.stores import Store, open_store
from plsc.remote.transfer import download, retried

log = logging.getLogger(__name__)

FETCHED = "fetched"  # <model_save_dir>/fetched: copies of checkpoints from elsewhere
PART = ".part_"  # a copy that is not complete

_STEP = re.compile(rf"({layout.CHECKPOINTS}/step_(\d{{8,}}))/{layout.MANIFEST}")


def fetch_start(run: Run, continues: bool) -> None:
    """Where the run starts from an address, copy that checkpoint here and set `checkpoint_dir` to the copy.

    `continues`: with `resume: auto` a checkpoint in `model_save_dir` comes first, and nothing is copied.
    """
    url = start_url(run.config)
    if url is None:
        return
    if continues and run.config.resume == "auto":
        own = run.group.all_gather(checkpoint.latest(run.config.model_save_dir) if run.group.rank == 0 else None)[0]
        if own is not None:
            return
    run.config.set("checkpoint_dir", fetch_checkpoint(run, url))


def fetch_checkpoint(run: Run, url: str) -> str:
    """Copy a checkpoint, or the newest complete one of a run, from an address; returns its directory on this machine.

    Every rank must call it. The first rank of each machine copies, the others wait. The copy is
    `<model_save_dir>/fetched/step_..._<the manifest's hash>`, or `checkpoint_dir` where PLSC 0.x's fs_checkpoint_dir
    names the source and checkpoint_dir the place; one that is there already is checked and used again.
    Raises CheckpointError on every rank when any of them fails; ConfigError where a driver is missing.
    """
    what = f"cannot fetch checkpoint {masked(url)}"
    store = open_store(url, run.config)
    found = together(run.group, what, lambda: _find(store) if run.group.rank == 0 else None)[0]
    source = Source(store, **found["source"])
    target = _target(run, source)
    part = f"{target}{PART}{found['nonce']}"
    makes = run.env.local_rank == 0
    copying = together(run.group, what, lambda: makes and _begin(source, target, part))
    copies = copying[run.group.rank]
    try:
        if any(copying):
            run.journal.say(f"copying {masked(source.url)} to {target}")
            for name in source.manifest().files:  # a step for each file: nobody waits longer than one file takes
                together(run.group, what, lambda name=name: source.copy(name, part) if copies else None)
            together(run.group, what, lambda: _finish(source, part, target) if copies else None)
        together(run.group, what, lambda: _require_visible(target))
    finally:
        if copies:
            shutil.rmtree(part, ignore_errors=True)  # gone by now, unless something failed
    return target


@dataclass(frozen=True)
class Source:
    """A checkpoint below an address: `prefix` is "" or ends with a slash; the text of its manifest and of its sum."""

    store: Store
    prefix: str
    text: str
    text_sum: str

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.prefix}".rstrip("/")

    @property
    def name(self) -> str:
        """step_00012000_ and the beginning of the manifest's SHA-256: another checkpoint has another name."""
        return f"{layout.step_name(self.manifest().step)}_{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"

    def manifest(self) -> Manifest:
        """Every field checked. Raises CheckpointError that names the address."""
        with tempfile.TemporaryDirectory(prefix="plsc_") as directory:
            self.write_manifest(directory)
            try:
                return checkpoint.read_manifest(directory)
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(directory, self.url)) from None

    def write_manifest(self, directory: str) -> None:
        write_bytes(os.path.join(directory, layout.MANIFEST_SUM), self.text_sum.encode())
        write_bytes(os.path.join(directory, layout.MANIFEST), self.text.encode())

    def copy(self, name: str, part: str) -> None:
        download(self.store, self.prefix + name, os.path.join(part, name), self.manifest().files[name])


def _find(store: Store) -> dict[str, Any]:
    """The checkpoint that an address means, as JSON data: itself, or the newest complete one of a run."""
    files = retried(store, store.url, store.files)
    if layout.MANIFEST in files:
        prefixes = [""]
    else:
        steps = [match for match in map(_STEP.fullmatch, files) if match]
        prefixes = [f"{match.group(1)}/" for match in sorted(steps, key=lambda match: -int(match.group(2)))]
    problems = []
    for prefix in prefixes:
        try:
            text, text_sum = _read_complete(store, prefix, files)
        except CheckpointError as error:
            log.warning("checkpoint passed over: %s", error)
            problems.append(str(error))
        else:
            source = {"prefix": prefix, "text": text, "text_sum": text_sum}
            return {"source": source, "nonce": secrets.token_hex(8)}
    raise CheckpointError(
        problems[0]
        if problems
        else f"nothing there is a checkpoint (no {layout.MANIFEST}) or the directory of a run "
        f"(no {layout.CHECKPOINTS}/step_.../{layout.MANIFEST})"
    )


def _read_complete(store: Store, prefix: str, files: dict[str, int]) -> tuple[str, str]:
    """The manifest and its sum. Raises CheckpointError unless every file is there with the right size."""

    def read(name: str) -> str:
        url = f"{store.url}/{prefix}{name}"
        return retried(store, url, lambda: store.read(prefix + name)).decode(errors="replace")

    source = Source(store, prefix, read(layout.MANIFEST), read(layout.MANIFEST_SUM))
    for name, entry in source.manifest().files.items():
        found = files.get(prefix + name)
        if found != entry.num_bytes:
            size = "missing" if found is None else f"{found} bytes"
            raise CheckpointError(f"{source.url}/{name}: {size}, expected {entry.num_bytes} bytes: incomplete")
    return source.text, source.text_sum


def _target(run: Run, source: Source) -> str:
    own = run.config.checkpoint_dir
    if own and not is_url(own):
        return os.path.abspath(own)
    return os.path.join(os.path.abspath(run.config.model_save_dir), FETCHED, source.name)


def _begin(source: Source, target: str, part: str) -> bool:
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
    path = os.path.join(target, layout.MANIFEST)
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            same = file.read() == source.text
    except FileNotFoundError:
        same = False
    if not same:
        raise CheckpointError(f"{target} holds something else; choose another directory or empty it")
    try:
        checkpoint.verify_files(target, checkpoint.read_manifest(target))
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove {target}, and it is copied again") from None


def _finish(source: Source, part: str, target: str) -> None:
    """The manifest last, then one rename."""
    source.write_manifest(part)
    sync_dir(part)
    os.replace(part, target)
    sync_dir(os.path.dirname(target))


def _require_visible(target: str) -> None:
    if not os.path.isfile(os.path.join(target, layout.MANIFEST)):
        raise CheckpointError(f"{target}: not there; the first rank of each machine copies, is its disk seen by all?")
