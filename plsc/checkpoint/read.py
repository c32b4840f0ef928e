"""Reading a checkpoint: check it, the replicated tensors, and any range of classes.

Hashes: `open_checkpoint` spreads the files over the ranks, so that each is hashed once per start. Reading checks size
and header of every file it opens, and `read_replicated` the hash as well.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from plsc.checkpoint.elsewhere import where_it_is
from plsc.checkpoint.layout import REPLICATED, file_identity, shard_name
from plsc.checkpoint.manifest import Manifest
from plsc.checkpoint.pending_rows import TOUCHED, WINDOW, PendingRows
from plsc.checkpoint.tensor_file import TensorFile
from plsc.checkpoint.tensors import TensorSpec
from plsc.errors import CheckpointError
from plsc.files import class_names
from plsc.files.hashes import hash_file
from plsc.parallel.shards import overlaps


class Damaged(CheckpointError):
    """A file of a checkpoint whose contents are not those that were written."""


def verify_files(path: str, manifest: Manifest, files: Iterable[str] | None = None, hashes: bool = True) -> None:
    """Check that files (by default all) exist with the right size and, with `hashes`, the right SHA-256.

    Raises CheckpointError that names the file.
    """
    for name in manifest.files if files is None else files:
        file_path, expected = os.path.join(path, name), manifest.files[name]
        try:
            size = os.stat(file_path).st_size
            if size != expected.num_bytes:
                raise CheckpointError(f"{file_path}: {size} bytes, expected {expected.num_bytes}: truncated or damaged")
            if hashes and hash_file(file_path) != expected.sha256:
                raise Damaged(f"{file_path}: SHA-256 differs from the manifest: damaged or exchanged")
        except OSError as error:
            kind = Damaged if error.errno == errno.EIO else CheckpointError  # the disk can no longer read it
            raise kind(f"{file_path}: {error.strerror}{where_it_is(path, name)}") from None


def read_replicated(path: str, manifest: Manifest) -> dict[str, np.ndarray]:
    """The replicated tensors by name, after checking the file's hash."""
    verify_files(path, manifest, [REPLICATED])
    with _open(path, manifest, REPLICATED, manifest.replicated_specs()) as file:
        return {spec.name: file.read(spec.name) for spec in manifest.replicated_tensors}


def read_class_names(path: str, manifest: Manifest) -> list[str]:
    """The names of the classes, by label, after checking the file's hash; none where the checkpoint has none."""
    entry, file = manifest.files.get(class_names.CLASS_NAMES), os.path.join(path, class_names.CLASS_NAMES)
    try:
        return [] if entry is None else class_names.read(file, entry, manifest.num_classes)
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise Damaged(f"{file}: {error}") from None


def read_window(path: str, manifest: Manifest) -> np.ndarray:
    """[steps + 1, K] float64 of a checkpoint with `row_history`."""
    return _waiting(path, manifest).window


def _waiting(path: str, manifest: Manifest) -> PendingRows:
    with _open(path, manifest, REPLICATED, manifest.replicated_specs()) as file:
        return PendingRows(file.path, file.read(WINDOW), manifest.row_history or {})


@dataclass(frozen=True)
class ReadOptions:
    """How class rows are read.

    names: only these tensors; None for all. stored: pending rows as they are stored, with the tensor of the steps at
    which they were last up to date, instead of up to date. block_rows: the most rows of a block.
    """

    names: Collection[str] | None = None
    stored: bool = False
    block_rows: int = 4096


READ_ALL = ReadOptions()


def read_rows(
    path: str,
    manifest: Manifest,
    first: int,
    last: int,
    options: ReadOptions = READ_ALL,
) -> Iterator[tuple[str, int, np.ndarray]]:
    """The classes [first, last) from however many shards they lie in, in blocks.

    Yields (tensor name, row, rows [n, ...]) where `row` counts from `first`: what a rank that owns [first, last) puts
    at its local row, and what `save` takes. Tensors in the manifest's order, rows upwards. Only the bytes asked for are
    read. Pending rows (plsc.checkpoint.pending_rows) are brought up to date, unless the options say otherwise. Raises
    CheckpointError, naming the file; ConfigError for a range outside [0, num_classes].
    """
    if not manifest.num_shards:
        raise CheckpointError(f"{path}: holds no class shards")
    if options.block_rows < 1:
        raise CheckpointError(f"block_rows must be at least 1, got {options.block_rows}")
    pieces = overlaps(manifest.num_classes, manifest.num_shards, first, last)
    return _rows(path, manifest, pieces, first, options)


def _rows(
    path: str, manifest: Manifest, pieces: list[tuple[int, int, int]], first: int, options: ReadOptions
) -> Iterator[tuple[str, int, np.ndarray]]:
    waiting = None if manifest.row_history is None else _waiting(path, manifest)
    specs = manifest.stored_specs(manifest.num_classes) if options.stored else manifest.shard_tensors
    specs = [spec for spec in specs if options.names is None or spec.name in options.names]
    for spec in specs:
        for index, piece_first, piece_last in pieces:
            start = manifest.class_ranges[index][0]
            name = shard_name(index, manifest.num_shards)
            with _open(path, manifest, name, manifest.shard_specs(index)) as file:
                for row, block in file.rows(spec.name, piece_first - start, piece_last - start, options.block_rows):
                    if spec.name == TOUCHED and waiting is not None:
                        waiting.check_steps(file, block)
                    elif waiting is not None and spec.name in waiting.tensors and not options.stored:
                        block = waiting.up_to_date(file, spec.name, row, block)
                    yield spec.name, start + row - first, block


class ReshardSource:
    """A ShardSource over a checkpoint: the classes [first, last) as stored, read block by block."""

    def __init__(self, path: str, manifest: Manifest, first: int, last: int, block_rows: int = 4096):
        self._path, self._manifest, self._first, self._last = path, manifest, first, last
        self._options = ReadOptions(stored=True, block_rows=block_rows)

    def tensors(self) -> list[TensorSpec]:
        return self._manifest.stored_specs(self._last - self._first)

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        return read_rows(self._path, self._manifest, self._first, self._last, self._options)


@dataclass(frozen=True)
class Expected:
    """What a run needs of a checkpoint; None is not compared.

    `replicated` and `shard` are the run's tensors, all of them; of a shard only names, types and widths matter.
    `optional`: names of tensors that either may lack, or have otherwise.
    """

    num_classes: int | None = None
    embedding_size: int | None = None
    replicated: Collection[TensorSpec] | None = None
    shard: Collection[TensorSpec] | None = None
    optional: Collection[str] = ()
    sub_centres: int | None = None


NOTHING_EXPECTED = Expected()


def check_fits(path: str, manifest: Manifest, expected: Expected) -> None:
    """Check a checkpoint against the run that wants to continue it. Raises CheckpointError with both values.

    At which step pending rows were last up to date is not compared: any run can read them.
    """
    for key, wanted, advice in (
        ("num_classes", expected.num_classes,
         f"set classifier.num_classes: {manifest.num_classes}, or begin a new run with other classes by init_from: "
         "backbone or classes (by name, or by label_map), and init_checkpoint in place of checkpoint_dir or resume"),
        ("sub_centres", expected.sub_centres,
         f"set classifier.sub_centres: {manifest.sub_centres}, or begin a new run by init_from: backbone"
         f"{'; plsc merge-centres keeps one centre of each class' if manifest.sub_centres > 1 else ''}"),
        ("embedding_size", expected.embedding_size, f"set model.embedding_size: {manifest.embedding_size}"),
    ):  # fmt: skip
        stored = getattr(manifest, key)
        if wanted is not None and wanted != stored:
            raise CheckpointError(f"{path}: {key} is {stored} in the checkpoint and {wanted} in this run; {advice}")
    left_out = {TOUCHED, *expected.optional}
    if expected.replicated is not None:
        _compare(path, "replicated", manifest.replicated_tensors, expected.replicated, left_out)
    if expected.shard is not None:
        own = [spec.with_rows(manifest.num_classes) for spec in expected.shard]
        _compare(path, "class", manifest.shard_tensors, own, left_out)


def _compare(
    path: str, kind: str, stored: Iterable[TensorSpec], wanted: Iterable[TensorSpec], left_out: Collection[str]
) -> None:
    stored_specs = {spec.name: spec for spec in stored if spec.name not in left_out}
    wanted_specs = {spec.name: spec for spec in wanted if spec.name not in left_out}
    for word, names in (
        ("the run needs and the checkpoint lacks", wanted_specs.keys() - stored_specs.keys()),
        ("the checkpoint holds and the run does not know", stored_specs.keys() - wanted_specs.keys()),
    ):
        if names:
            raise CheckpointError(f"{path}: {len(names)} {kind} tensors that {word}, such as {min(names)}")
    for name, spec in wanted_specs.items():
        found = stored_specs[name]
        if found != spec:
            raise CheckpointError(
                f"{path}: {kind} tensor {name} is {found.dtype} {list(found.shape)} in the checkpoint and "
                f"{spec.dtype} {list(spec.shape)} in this run"
            )


def _open(path: str, manifest: Manifest, name: str, specs: list[TensorSpec]) -> TensorFile:
    return TensorFile(os.path.join(path, name), specs, file_identity(manifest.step, name))
