"""Writes a state_dict in the format of torch.save, without torch, for torch.load(weights_only=True).

The opcodes are those of pickle protocol 2 (listed in Python's pickletools). The pickled object is an OrderedDict of
calls of torch._utils._rebuild_tensor_v2, each with a separate storage. plsc.files.torch_file reads the format.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from plsc.files.atomic import PathLike, whole_file

_STORAGES = {np.dtype("<f4"): "FloatStorage", np.dtype("<i8"): "LongStorage"}
_DATE = (1980, 1, 1, 0, 0, 0)  # constant, so that the same weights give the same bytes
_FOLDER = "archive"


def write_state_dict(path: PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write float32 and int64 arrays under their names, atomically. Raises OSError."""
    with whole_file(path) as file:
        _write(file, {name: np.asarray(array, order="C") for name, array in arrays.items()})


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _entry(archive, "data.pkl", _pickled(arrays))
        _entry(archive, "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _entry(archive, f"data/{key}", memoryview(array.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]
        _entry(archive, "version", b"3\n")


def _entry(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    archive.writestr(zipfile.ZipInfo(f"{_FOLDER}/{name}", _DATE), data)  # type: ignore[arg-type]  # any buffer will do


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    parts = [b"\x80\x02", _ORDERED, b"("]
    for key, (name, array) in enumerate(arrays.items()):
        strides = [step // array.itemsize for step in array.strides]
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", b"("]
        parts += [b"(", _text("storage"), f"ctorch\n{_STORAGES[array.dtype]}\n".encode(), _text(str(key)), _text("cpu")]
        parts += [_number(array.size), b"tQ"]  # TUPLE, BINPERSID
        parts += [_number(0), _tuple(array.shape), _tuple(strides), b"\x89", _ORDERED, b"tR"]  # NEWFALSE, TUPLE, REDUCE
    return b"".join([*parts, b"u."])  # SETITEMS, STOP


_ORDERED = b"ccollections\nOrderedDict\n)R"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    """BININT for numbers below 2**31, else LONG1."""
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(values) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
