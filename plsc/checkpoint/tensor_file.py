"""One file of tensors in the safetensors format, written and read in pieces.

Layout: 8 bytes header length (little-endian), a JSON header padded with spaces to a multiple of 8,
then the tensors' bytes, little-endian, C order, without gaps, in the header's order.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator

import numpy as np

from plsc.checkpoint.tensors import TensorSpec
from plsc.errors import CheckpointError
from plsc.files import safe_open
from plsc.files.hashes import FileEntry, HashedFile

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors package


def write_tensors(
    path: str, specs: list[TensorSpec], blocks: Iterable[tuple[str, int, np.ndarray]], metadata: dict[str, str]
) -> FileEntry:
    """Write a new file from blocks of rows and flush it to disk; holds one block at a time.

    `blocks` yields (tensor name, first row, rows [n, ...]) in the order of `specs`, rows upwards without a gap; a
    tensor without dimensions comes as one block with first row 0.
    Raises CheckpointError when the blocks do not add up to `specs`, OSError when the disk refuses.
    """
    with HashedFile(path) as file:
        file.write(_header(specs, metadata))
        by_name = {spec.name: spec for spec in specs}
        if len(by_name) != len(specs):
            raise CheckpointError(f"{path}: two tensors of one name among {[spec.name for spec in specs]}")
        written = dict.fromkeys(by_name, 0)
        order = iter(specs)
        current = None
        for name, first, block in blocks:
            while current is None or name != current.name:
                _check_full(path, current, written)
                current = next(order, None)
                if current is None:
                    raise CheckpointError(f"{path}: tensor {name} is not declared, or comes out of order")
            if block.dtype.kind == "f" and not np.isfinite(block).all():
                raise CheckpointError(f"{name}, rows from {first}: holds values that are not finite; not saved")
            data = _block_bytes(path, current, block)
            if first * current.row_bytes != written[name]:
                raise CheckpointError(f"{path}: tensor {name}: the block at row {first} does not follow the one before")
            file.write(data)
            written[name] += len(data)
        for spec in [current, *order]:
            _check_full(path, spec, written)
        return file.finish()


class TensorFile:
    """A file of tensors opened for reading. Raises CheckpointError, naming it, when it is not what it should be."""

    def __init__(self, path: str, specs: list[TensorSpec], metadata: dict[str, str]):
        """`specs` in the order of writing and `metadata` are what the file must hold, to the byte."""
        self.path = path
        header = _header(specs, metadata)
        try:
            self._file = safe_open.open_bytes(path, safe_open.TENSORS)
            found = self._file.read(len(header))
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from None
        if found != header:
            self._file.close()
            raise CheckpointError(f"{path}: its header does not agree with the manifest: damaged or exchanged")
        self._offsets = {}
        offset = len(header)
        for spec in specs:
            self._offsets[spec.name] = (spec, offset)
            offset += spec.num_bytes
        if size != offset:
            self._file.close()
            raise CheckpointError(f"{path}: {size} bytes, expected {offset}: truncated or damaged")

    def read(self, name: str) -> np.ndarray:
        """A whole tensor."""
        spec, offset = self._offsets[name]
        return self._read_at(offset, spec)

    def rows(self, name: str, first: int, last: int, block_rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) for the rows [first, last) of a tensor, at most `block_rows` at once."""
        spec, offset = self._offsets[name]
        for row in range(first, last, block_rows):
            part = spec.with_rows(min(block_rows, last - row))
            yield row, self._read_at(offset + row * spec.row_bytes, part)

    def _read_at(self, offset: int, spec: TensorSpec) -> np.ndarray:
        array = np.empty(spec.shape, spec.numpy_dtype)
        if array.nbytes:
            try:
                self._file.seek(offset)
                count = self._file.readinto(memoryview(array.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]
            except OSError as error:
                raise CheckpointError(f"{self.path}: {error.strerror}") from None
            if count != array.nbytes:
                raise CheckpointError(f"{self.path}: ends in the middle of tensor {spec.name}")
        return array

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()


def _header(specs: list[TensorSpec], metadata: dict[str, str]) -> bytes:
    entries: dict = {"__metadata__": metadata}
    offset = 0
    for spec in specs:
        end = offset + spec.num_bytes
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise CheckpointError(f"a header of {len(text)} bytes; safetensors allows {MAX_HEADER_BYTES}")
    return len(text).to_bytes(8, "little") + text


def _block_bytes(path: str, spec: TensorSpec, block: np.ndarray) -> memoryview:
    found = TensorSpec.of(spec.name, block)
    if found.dtype != spec.dtype or found.shape[1:] != spec.shape[1:] or (found.shape == ()) != (spec.shape == ()):
        raise CheckpointError(
            f"{path}: tensor {spec.name}: a block of {found.dtype} {list(found.shape)} does not fit into "
            f"{spec.dtype} {list(spec.shape)}"
        )
    return memoryview(np.asarray(block, spec.numpy_dtype, order="C").reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _check_full(path: str, spec: TensorSpec | None, written: dict[str, int]) -> None:
    if spec is not None and written[spec.name] != spec.num_bytes:
        raise CheckpointError(
            f"{path}: tensor {spec.name}: {written[spec.name]} bytes came, its shape needs {spec.num_bytes}"
        )
