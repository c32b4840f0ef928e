"""Saves a checkpoint: every rank writes its shard to a temporary directory, then one rename makes it visible."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.checkpoint import layout
from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.directory import (
    NOT_SEEN,
    clean_up_or_warn,
    prepare_dirs,
    publish_dir,
    require_sizes,
    write_manifest,
)
from plsc.checkpoint.finish_in_places import finish_in_places
from plsc.checkpoint.manifest import META_KEYS, Manifest, parse
from plsc.checkpoint.pending_rows import TOUCHED, WINDOW
from plsc.checkpoint.places import SHARED, Places
from plsc.checkpoint.tensor_file import write_tensors
from plsc.checkpoint.tensors import ShardSource, TensorSpec
from plsc.errors import CheckpointError
from plsc.files import class_names
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import FileEntry, write_new
from plsc.parallel.ranks import OneRank, Ranks
from plsc.version import __version__


@dataclass(frozen=True)
class RankTensors:
    """What one rank saves.

    replicated: rank 0's; None on the others. shard: the first k ranks give one, following
    `class_range(num_classes, rank, k)`; k is world_size for a sharded classifier, 1 for a replicated one (its matrix
    then is a shard), 0 for none. checksum: of what must be equal on all ranks; a different one on any rank is an error.
    Where rows are pending (plsc.checkpoint.pending_rows) `replicated` holds WINDOW, and TOUCHED is the first tensor of
    each shard.
    """

    replicated: Mapping[str, np.ndarray] | None
    shard: ShardSource | None
    checksum: str = ""


def save(
    run_dir: str, step: int, tensors: RankTensors, meta: dict[str, Any], group: Ranks, places: Places = SHARED
) -> str:
    """Write the checkpoint of `step` under `run_dir` and return its directory. Every rank must call it.

    With several `places` each has the manifest and its part of the files (plsc.checkpoint.exchange); all of them
    finish their files before any puts its directory in place.

    `meta` is rank 0's; the other ranks may pass {}. It has the keys META_KEYS, of which `data` and `sub_centres`
    may be left out, and holds plain JSON; where rows are pending it also has `row_history`, what `describe_optimizer`
    returns. It may have `class_names`, by label, which become a file of their own (plsc.files.class_names).
    A checkpoint of the same step is replaced, and deleted only when the new one is in place.
    Raises CheckpointError on every rank when any of them fails. The older ones are then intact and the new one gone,
    or, where only the flush after the rename failed, complete. With several places, where one cannot rename its
    directory, the new one is kept as it is: it is finished, and `newest` puts it in place.
    """
    root = layout.checkpoints_dir(run_dir)
    what = f"cannot save the checkpoint of step {step} in {root}"
    leads = places.leads(group.rank)
    try:
        summaries = on_all_ranks(
            group, what, lambda: {**_shard_summary(step, tensors.shard), "checksum": tensors.checksum}
        )
        _require_same_replicas(what, summaries)
        num_shards = _num_shards(what, summaries)
        final = os.path.join(root, layout.step_name(step))
        aside = os.path.join(root, layout.WRITING + layout.step_name(step))

        def prepare() -> None:
            if group.rank == 0:
                # refuses what cannot be stored before hours of writing
                _manifest_fields(step, tensors.replicated, summaries, meta, group.world_size)
            if leads:
                prepare_dirs(run_dir, final, aside)

        on_all_ranks(group, what, prepare)
        name = layout.shard_name(group.rank, num_shards) if group.rank < num_shards else None
        entries = on_all_ranks(group, what, lambda: _write_shard(aside, step, name, tensors.shard))

        def finish() -> Manifest:
            fields = _manifest_fields(step, tensors.replicated, summaries, meta, group.world_size)
            return _finish(aside, fields, tensors.replicated or {}, entries, _class_names(meta))

        def publish() -> None:
            if group.rank == 0:
                manifest = finish()
                require_sizes(aside, manifest, manifest.files)
                write_manifest(aside, manifest.to_bytes())
                publish_dir(aside, final)

        if places.several:
            text = on_all_ranks(group, what, lambda: finish().to_bytes().decode() if group.rank == 0 else None)[0]
            finish_in_places(group, places, aside, text.encode())
        else:
            on_all_ranks(group, what, publish)
    except CheckpointError:
        if leads:
            clean_up_or_warn(run_dir)
        group.barrier("checkpoint given up")  # no rank continues before the leftovers are removed
        raise
    if places.several:  # what is finished stays where this fails: another place has perhaps deleted what it replaces
        on_all_ranks(group, what, lambda: publish_dir(aside, final) if leads else None)
    return final


def save_shards(
    run_dir: str, step: int, replicated: Mapping[str, np.ndarray], shards: Sequence[ShardSource], meta: dict[str, Any]
) -> str:
    """Like `save`, by one process: the shards are written one after the other."""
    root = layout.checkpoints_dir(run_dir)
    final = os.path.join(root, layout.step_name(step))
    aside = os.path.join(root, layout.WRITING + layout.step_name(step))

    def write() -> None:
        summaries = [_shard_summary(step, shard) for shard in shards]
        fields = _manifest_fields(step, replicated, summaries, meta, max(1, len(shards)))
        os.makedirs(run_dir, exist_ok=True)
        prepare_dirs(run_dir, final, aside)
        names = [layout.shard_name(index, len(shards)) for index in range(len(shards))]
        entries = [_write_shard(aside, step, name, shard) for name, shard in zip(names, shards)]
        manifest = _finish(aside, fields, replicated, entries, _class_names(meta))
        write_manifest(aside, manifest.to_bytes())
        publish_dir(aside, final)

    try:
        on_all_ranks(OneRank(), f"cannot save the checkpoint of step {step} in {root}", write)
    except CheckpointError:
        clean_up_or_warn(run_dir)
        raise
    return final


def _shard_summary(step: int, shard: ShardSource | None) -> dict[str, Any]:
    """A summary of what a rank will write."""
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise CheckpointError(f"step must be an integer of at least 0, got {step!r}")
    return {"step": step, "tensors": None if shard is None else [spec.to_json() for spec in shard.tensors()]}


def _require_same_replicas(what: str, summaries: list[dict[str, Any]]) -> None:
    """Every rank sees the same summaries, so it returns, or raises, the same on each."""
    sums = [summary["checksum"] for summary in summaries]
    others = [rank for rank, found in enumerate(sums) if found != sums[0]]
    if others:
        raise CheckpointError(
            f"{what}: what all ranks hold alike, such as the backbone, is not on rank(s) {', '.join(map(str, others))} "
            f"what it is on rank 0 (checksums {', '.join(sums)}): they compute otherwise, or one has a fault; continue "
            "from an older checkpoint, on machines of one kind"
        )


def _num_shards(what: str, summaries: list[dict[str, Any]]) -> int:
    """How many ranks give a shard. Every rank sees the same summaries, so it returns, or raises, the same on each."""
    steps = [summary["step"] for summary in summaries]
    if len(set(steps)) > 1:
        raise CheckpointError(f"{what}: the ranks are at different steps: {steps}")
    gives = [summary["tensors"] is not None for summary in summaries]
    if gives != sorted(gives, reverse=True):
        raise CheckpointError(f"{what}: the ranks with a class shard must be the first ones, got {gives}")
    return sum(gives)


def _manifest_fields(
    step: int,
    replicated: Mapping[str, np.ndarray] | None,
    summaries: list[dict[str, Any]],
    meta: dict[str, Any],
    world_size: int,
) -> dict[str, Any]:
    """The manifest as JSON data, with files that are still empty, checked as a reader would check it."""
    if replicated is None:
        raise CheckpointError("rank 0 must give the replicated tensors, got None")
    meta = {"data": {}, "sub_centres": 1, **meta}
    optimizer_fields = meta.pop("row_history", {})
    named = _class_names(meta)
    meta.pop("class_names", None)
    if set(meta) != set(META_KEYS):
        raise CheckpointError(f"meta must have the keys {', '.join(META_KEYS)}; got {', '.join(map(str, meta))}")
    _check_plain("meta", meta)
    shards = [summary["tensors"] for summary in summaries if summary["tensors"] is not None]
    classes = [tensors[0]["shape"][0] if tensors and tensors[0]["shape"] else 0 for tensors in shards]
    ends = np.cumsum([0, *classes]).tolist()
    history = _row_history(replicated, shards, optimizer_fields)
    first = [] if not shards else shards[0][history is not None :]
    files = [*layout.file_names(len(shards)), *([CLASS_NAMES] if named else [])]
    fields = {
        **({} if history is None else {"row_history": history}),
        **meta,
        "plsc_version": __version__,
        "step": step,
        "world_size": world_size,
        "class_ranges": [list(pair) for pair in zip(ends[:-1], ends[1:])],
        "replicated_tensors": [spec.to_json() for spec in _replicated_specs(replicated) if spec.name != WINDOW],
        "shard_tensors": [_with_rows(tensor, ends[-1]) for tensor in first],
        "files": {name: {"bytes": 0, "sha256": "0" * 64} for name in files},
    }
    for rank, tensors in enumerate(shards):
        if tensors != [_with_rows(tensor, classes[rank]) for tensor in shards[0]]:
            raise CheckpointError(f"rank {rank} gives other class tensors than rank 0, or of different lengths")
    try:
        parse(fields)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return fields


def _row_history(
    replicated: Mapping[str, np.ndarray], shards: list[list[dict[str, Any]]], optimizer_fields: Mapping[str, Any]
) -> dict[str, Any] | None:
    waits = WINDOW in replicated
    if any((bool(tensors) and tensors[0]["name"] == TOUCHED) != waits for tensors in shards):
        raise CheckpointError(f"{WINDOW} and {TOUCHED} belong together: one is given without the other")
    return {"steps": len(replicated[WINDOW]) - 1, **optimizer_fields} if waits else None


def _with_rows(tensor: dict[str, Any], rows: int) -> dict[str, Any]:
    return {**tensor, "shape": [rows, *tensor["shape"][1:]]}


def _replicated_specs(replicated: Mapping[str, np.ndarray]) -> list[TensorSpec]:
    """In the order of the file: wide types first, so that each tensor begins at a multiple of its item size."""
    specs = [TensorSpec.of(name, np.asarray(array)) for name, array in replicated.items()]
    return sorted(specs, key=lambda spec: (spec.name != WINDOW, -spec.numpy_dtype.itemsize))


def _write_shard(aside: str, step: int, name: str | None, shard: ShardSource | None) -> list[Any] | None:
    if name is None or shard is None:
        return None
    if not os.path.isdir(aside):
        raise CheckpointError(f"{aside} was made by another rank and is not visible here; {NOT_SEEN}")
    identity = layout.file_identity(step, name)
    entry = write_tensors(os.path.join(aside, name), shard.tensors(), shard.blocks(), identity)
    return [entry.num_bytes, entry.sha256]


def _class_names(meta: Mapping[str, Any]) -> bytes:
    """The contents of the file of class names; empty where the classes have none."""
    names = meta.get("class_names")
    try:
        return class_names.to_bytes(names, meta.get("num_classes", 0)) if names else b""
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _finish(
    aside: str, fields: dict[str, Any], replicated: Mapping[str, np.ndarray], entries: list[Any], named: bytes
) -> Manifest:
    """Write what is rank 0's, but for the manifest. named: the contents of the file of class names, empty for none."""
    names = list(fields["files"])
    specs = _replicated_specs(replicated)
    path = os.path.join(aside, layout.REPLICATED)
    blocks: Iterator = ((spec.name, 0, np.asarray(replicated[spec.name])) for spec in specs)
    files = [write_tensors(path, specs, blocks, layout.file_identity(fields["step"], layout.REPLICATED))]
    files += [FileEntry(*entry) for entry in entries if entry is not None]
    files += [write_new(os.path.join(aside, CLASS_NAMES), named)] if named else []
    fields["files"] = {name: {"bytes": entry.num_bytes, "sha256": entry.sha256} for name, entry in zip(names, files)}
    return parse(fields)


def _check_plain(where: str, value: Any) -> None:
    """Refuse values that JSON cannot represent exactly. Tuples become lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise CheckpointError(f"{where}: the key {key!r} must be a text")
            _check_plain(f"{where}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_plain(f"{where}[{index}]", inner)
    elif not (value is None or type(value) in (bool, int, str) or type(value) is float and math.isfinite(value)):
        raise CheckpointError(f"{where}: {value!r:.80} ({type(value).__name__}) is not plain JSON data")
