"""Reads files of torch.save without torch and without calling any function that they name.

Since torch 1.6 such a file is a zip: `NAME/data.pkl`, a pickle in which each tensor is a call of
torch._utils._rebuild_tensor_v2 with an external storage, and `NAME/data/KEY`, the data of each storage. The pickle is
read as by safe_pickle: the few names that weights need are replaced by stand-ins, all others are refused. A tensor is
checked against its storage when the pickle is read; its data are read on demand.
"""

from __future__ import annotations

import math
import zlib
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from plsc.errors import DataError
from plsc.files import safe_open, stored_zip
from plsc.files.safe_open import MIB
from plsc.files.stored_zip import Entry
from plsc.files.torch_pickle import BFLOAT16, ITEM_BYTES, Storage, load, whole_numbers

_MAX_PICKLE = 64 * MIB  # 200 layers and their optimizer have 1 MB
OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first bytes of files of torch before 1.6


class Tensor:
    """A tensor of an open TorchFile: `shape`, `dtype` ("<f4", "bfloat16", ...), and `read()`."""

    __slots__ = ("shape", "dtype", "_file", "_key", "_offset", "_strides")

    def __init__(self, file: TorchFile, storage: Storage, offset: Any, shape: Any, strides: Any) -> None:
        self.shape, self.dtype = whole_numbers(shape), storage.dtype
        self._file, self._key = file, storage.key
        self._strides, (self._offset,) = whole_numbers(strides), whole_numbers((offset,))
        size = math.prod(self.shape)
        reach = self._offset + sum((n - 1) * step for n, step in zip(self.shape, self._strides)) + 1 if size else 0
        if len(self.shape) != len(self._strides) or size > storage.numbers or reach > storage.numbers:
            raise DataError(
                f"refused: a tensor of shape {list(self.shape)}, offset {self._offset} and strides "
                f"{list(self._strides)} extends beyond its storage of {storage.numbers} numbers"
            )

    @property
    def is_float(self) -> bool:
        """Whether it holds floats of any size."""
        return self.dtype == BFLOAT16 or np.dtype(self.dtype).kind == "f"

    @property
    def num_bytes(self) -> int:
        """The size of the data in its dtype."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def read(self) -> np.ndarray:
        """The data in C order; bfloat16 becomes float32. Raises DataError for damaged data."""
        flat = self._file.storage(self._key, self.dtype)
        steps = [step * flat.itemsize for step in self._strides]
        view = np.lib.stride_tricks.as_strided(flat[self._offset :], self.shape, steps, writeable=False)
        return np.array(view, order="C")


class TorchFile:
    """A file of torch.save; a context manager. `value`: the saved object, with a Tensor for each tensor.

    Raises DataError, without the name of the file, for invalid contents; OSError if it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._file = safe_open.open_bytes(path, safe_open.TENSORS)
        try:
            self._entries, self._folder = _open_zip(self._file)
            self._last: tuple[str, np.ndarray] | None = None
            self.value = load(self._pickled(), lambda key: self.entry(key).size, partial(Tensor, self))
        except (DataError, OSError):
            self._file.close()
            raise
        except Exception as error:  # damaged pickles raise anything
            self._file.close()
            raise DataError(f"damaged: its data.pkl cannot be read: {type(error).__name__}") from None

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _pickled(self) -> bytes:
        entry = self._entries[self._folder + "data.pkl"]
        if entry.size > _MAX_PICKLE:
            raise DataError(f"refused: its data.pkl has {entry.size:,} bytes; at most {_MAX_PICKLE:,} are allowed")
        self._file.seek(entry.offset)
        return self._file.read(entry.size)

    def entry(self, key: str) -> Entry:
        """The zip entry of the storage of this key. Raises DataError."""
        found = self._entries.get(f"{self._folder}data/{key}")
        if found is None:
            raise DataError(f"damaged: the data of its storage {ascii(key)[:40]} are missing")
        return found

    def storage(self, key: str, dtype: str) -> np.ndarray:
        """The data of a storage, read-only; the last one is cached for tensors that share it."""
        if self._last is None or self._last[0] != key:
            entry = self.entry(key)
            self._file.seek(entry.offset)
            data = self._file.read(entry.size)
            if len(data) != entry.size or zlib.crc32(data) != entry.crc:
                raise DataError(
                    f"damaged: the checksum of its storage {ascii(key)[:40]} does not match (or it was saved under "
                    "torch.serialization.set_crc32_options(False): save it again without)"
                )
            self._last = key, np.frombuffer(data, np.uint8)
        numbers = self._last[1]
        if dtype != BFLOAT16:
            return numbers.view(dtype)
        return (numbers.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _open_zip(file: BinaryIO) -> tuple[dict[str, Entry], str]:
    """(entries, their common folder). Raises DataError if it is not a file of torch.save."""
    head = file.read(len(OLD_MAGIC))
    if head == OLD_MAGIC:
        raise DataError(
            "was written by torch before 1.6, or by torch.save with _use_new_zipfile_serialization=False; load it with "
            "torch and save it again"
        )
    if head[:4] != stored_zip.MAGIC:
        raise DataError("is not a file of torch.save: its first bytes differ")
    entries = stored_zip.read_directory(file)
    folders = [name[: -len("data.pkl")] for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise DataError(f"is not a file of torch.save: it has {len(folders)} data.pkl instead of one")
    order = entries.get(folders[0] + "byteorder")
    if order is not None:
        file.seek(order.offset)
        if file.read(min(order.size, 16)) != b"little":
            raise DataError("was saved on a machine with another byte order; save it again on a little-endian one")
    return entries, folders[0]
