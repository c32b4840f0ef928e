"""Files of torch.save, read without torch and without running anything that they name.

Since torch 1.6 such a file is a zip: `NAME/data.pkl`, a pickle in which each tensor is a call of
torch._utils._rebuild_tensor_v2 on a storage that lies outside, and `NAME/data/KEY`, the numbers of each storage. The
pickle is read as safe_pickle reads others: stand-ins answer the few names that weights need, all other names are
refused. A tensor is checked against its storage when it is named, and read when it is asked for.
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
from plsc.files.torch_pickle import BFLOAT16, Storage, load, whole_numbers

_MOST_PICKLE = 64 * MIB  # that of 200 layers and their optimizer has 1 MB
OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of torch before 1.6 begins


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
                f"refused: a tensor {list(self.shape)} from {self._offset} in steps of {list(self._strides)} is more "
                f"than its storage of {storage.numbers} numbers"
            )

    @property
    def is_float(self) -> bool:
        """Whether it holds floats, of any size."""
        return self.dtype == BFLOAT16 or np.dtype(self.dtype).kind == "f"

    def read(self) -> np.ndarray:
        """The numbers in C order; bfloat16 becomes float32. Raises DataError for damaged ones."""
        flat = self._file.storage(self._key, self.dtype)
        steps = [step * flat.itemsize for step in self._strides]
        view = np.lib.stride_tricks.as_strided(flat[self._offset :], self.shape, steps, writeable=False)
        return np.array(view, order="C")


class TorchFile:
    """A file of torch.save; a context manager. `value`: what was saved, with a Tensor for each tensor.

    Raises DataError, without the name of the file, for what it should not hold; OSError where it cannot be read.
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
        if entry.size > _MOST_PICKLE:
            raise DataError(f"refused: its data.pkl has {entry.size} bytes; that of weights may have {_MOST_PICKLE}")
        self._file.seek(entry.offset)
        return self._file.read(entry.size)

    def entry(self, key: str) -> Entry:
        """Where the storage of this key lies. Raises DataError."""
        found = self._entries.get(f"{self._folder}data/{key}")
        if found is None:
            raise DataError(f"damaged: the numbers of its storage {ascii(key)[:40]} are missing")
        return found

    def storage(self, key: str, dtype: str) -> np.ndarray:
        """All numbers of a storage, read-only; the last one is kept, for tensors that share it."""
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
    """(the entries, the folder that they are in). Raises DataError for what is no file of torch.save."""
    head = file.read(len(OLD_MAGIC))
    if head == OLD_MAGIC:
        raise DataError("is of torch before 1.6; load it with torch and save it again")
    if head[:4] != stored_zip.MAGIC:
        raise DataError("is no file of torch.save: it begins otherwise")
    entries = stored_zip.read_directory(file)
    folders = [name[: -len("data.pkl")] for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise DataError(f"is no file of torch.save: it holds {len(folders)} data.pkl, must hold one")
    order = entries.get(folders[0] + "byteorder")
    if order is not None:
        file.seek(order.offset)
        if file.read(min(order.size, 16)) != b"little":
            raise DataError("was saved on a machine with another byte order; save it again on a little-endian one")
    return entries, folders[0]
