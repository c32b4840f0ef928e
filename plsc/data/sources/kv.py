"""PLSC 2.2's KV files: one image a file, with a key."""

from __future__ import annotations

import io
import struct
from typing import Any

from plsc.data.sources import Directory, register_source
from plsc.data.sources.label_list import LabelListSource
from plsc.errors import DataError
from plsc.files.safe_pickle import load_plain

_LENGTH = struct.Struct("<I")


@register_source("kv", source="PLSC 2.2: is_bin, tools/convert_image_bin.py")
class KVSource(LabelListSource):
    """A label list whose files are PLSC 2.2's: key and pickled bytes of an image, each behind its length.

    As `list`; the pickle is read without running anything. It is not recognised by `auto`, which takes such a list for
    one of images: set data.dataset: kv.
    """

    looks_for = ""

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        return ""

    def read(self, index: int) -> tuple[bytes, int]:
        data, label = super().read(index)
        return _value(data, self.name(index)), label

    def record(self, count: int | None = None) -> dict[str, Any]:
        return {**super().record(count), "kind": "kv"}


def _value(data: bytes, name: str) -> bytes:
    """The bytes of the image. Raises DataError that begins with ``name``."""
    start = 0
    for _ in range(2):  # the key, the value
        if start + _LENGTH.size > len(data):
            raise DataError(f"{name}: {len(data)} bytes are too few for key and value of a KV file")
        length = _LENGTH.unpack_from(data, start)[0]
        begin, start = start + _LENGTH.size, start + _LENGTH.size + length
        if start > len(data):
            raise DataError(f"{name}: a key or value of {length:,} bytes in a file of {len(data):,}: no KV file")
    try:
        value = load_plain(io.BytesIO(data[begin:start]))
    except DataError as error:
        raise DataError(f"{name}: its pickle is {error}") from error
    except Exception as error:  # pickle raises anything for damaged data
        raise DataError(f"{name}: its pickle is damaged: {type(error).__name__}") from error
    if not isinstance(value, bytes):
        raise DataError(f"{name}: its pickle holds {type(value).__name__}; it must be the bytes of an image")
    return value
