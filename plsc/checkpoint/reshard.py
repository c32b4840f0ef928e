"""Writes a checkpoint for another number of ranks, or as one file, a block of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from plsc.checkpoint import layout
from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.lock import exclusive_run_dir
from plsc.checkpoint.manifest import META_KEYS, Manifest, read_manifest
from plsc.checkpoint.pending_rows import WINDOW
from plsc.checkpoint.read import (
    ReadOptions,
    ReshardSource,
    read_class_names,
    read_replicated,
    read_rows,
    read_window,
    verify_files,
)
from plsc.checkpoint.tensor_file import write_tensors
from plsc.checkpoint.tensors import ShardSource, TensorSpec
from plsc.checkpoint.write import save_shards
from plsc.errors import CheckpointError
from plsc.files.atomic import rename_new
from plsc.files.hashes import FileEntry
from plsc.parallel.ranks import OneRank
from plsc.parallel.shards import class_range


def reshard(path: str, run_dir: str, num_shards: int) -> str:
    """Write the checkpoint directory `path` with `num_shards` shards under `run_dir`; returns the new directory.

    Values stay as they are, to the bit. Memory: the replicated tensors and one block of rows.
    Raises CheckpointError for a damaged checkpoint, a disk that refuses or a directory in use, ConfigError for a number
    that cannot work.
    """
    manifest = _checked(path)
    if not manifest.num_shards:
        raise CheckpointError(f"{path}: holds no class shards; there is nothing to split")
    ranges = [class_range(manifest.num_classes, rank, num_shards) for rank in range(num_shards)]
    sources = [ReshardSource(path, manifest, first, last) for first, last in ranges]
    return rewrite(path, manifest, run_dir, sources, {}, "--to")


def rewrite(
    path: str, manifest: Manifest, run_dir: str, sources: Sequence[ShardSource], changes: dict[str, Any], option: str
) -> str:
    """Write the checkpoint directory `path` with the shards `sources` under `run_dir`; returns the new directory.

    `changes` replace fields of META_KEYS. `option` names `run_dir` for the user. Raises CheckpointError.
    """
    require_other_run(path, manifest, run_dir)
    meta = {**{key: getattr(manifest, key) for key in META_KEYS}, **changes}
    meta["class_names"] = read_class_names(path, manifest)
    replicated = read_replicated(path, manifest)
    if manifest.row_history is not None:
        replicated[WINDOW] = read_window(path, manifest)
        meta["row_history"] = {key: value for key, value in manifest.row_history.items() if key != "steps"}
    with exclusive_run_dir(run_dir, option):
        return save_shards(run_dir, manifest.step, replicated, sources, meta)


def require_other_run(path: str, manifest: Manifest, run_dir: str) -> None:
    """Raise CheckpointError where `run_dir` holds the checkpoint directory `path`, or another one of its step."""
    if os.path.realpath(layout.checkpoints_dir(run_dir)) == os.path.realpath(os.path.dirname(path)):
        raise CheckpointError(f"{run_dir}: holds the checkpoint that is read; choose another directory")
    there = os.path.join(layout.checkpoints_dir(run_dir), layout.step_name(manifest.step))
    if os.path.lexists(there):
        raise CheckpointError(f"{there}: exists already; remove it, or choose another directory")


def merge(path: str, file: str) -> FileEntry:
    """Write all tensors of a checkpoint into one new safetensors file, the classes in order, all rows up to date.

    Raises CheckpointError, also where `file` exists.
    """
    manifest = _checked(path)
    specs = [*manifest.replicated_tensors, *manifest.shard_tensors]
    # wide types first, as safetensors readers want each tensor aligned; the rest of the order stays
    specs.sort(key=lambda spec: -spec.numpy_dtype.itemsize)
    metadata = {"plsc_checkpoint": f"step {manifest.step} merged", "plsc_version": manifest.plsc_version}

    def write() -> list:
        entry = write_tensors(file + ".part", specs, _blocks(path, manifest, specs), metadata)
        rename_new(file + ".part", file)
        return [entry.num_bytes, entry.sha256]

    try:
        return FileEntry(*on_all_ranks(OneRank(), f"cannot write {file}", write)[0])
    except CheckpointError:
        if os.path.exists(file + ".part"):
            os.unlink(file + ".part")
        raise


def _blocks(path: str, manifest: Manifest, specs: list[TensorSpec]) -> Iterator[tuple[str, int, np.ndarray]]:
    replicated = read_replicated(path, manifest)
    for spec in specs:
        if spec.name in replicated:
            yield spec.name, 0, replicated[spec.name]
        else:
            yield from read_rows(path, manifest, 0, manifest.num_classes, ReadOptions(names=[spec.name]))


def _checked(path: str) -> Manifest:
    manifest = read_manifest(path)
    verify_files(path, manifest)
    return manifest
