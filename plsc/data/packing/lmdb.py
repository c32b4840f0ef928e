"""Writes LMDB in the schema of face recognition repositories."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import Any

from plsc.data.containers.image_values import CLASSES, KEYS, LENGTH
from plsc.data.packing.writer import Contents, Writer
from plsc.data.sources import Source
from plsc.data.sources.lmdb import LMDBSource
from plsc.errors import DataError
from plsc.extras import install
from plsc.files.atomic import flush_path

_FIRST_MAP = 1 << 28  # bytes; doubled when it is full
_BATCH = 1 << 26  # bytes of images in a transaction


class LMDBWriter(Writer):
    """Keys "0", "1", ...; values msgpack of (image bytes, label); `__len__`, `__keys__`, `__classnum__`."""

    def __init__(self, directory: str, state: dict[str, Any]) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise DataError(f"--to lmdb: needs the package lmdb: {install('lmdb')}") from error
        self._full, self._error = lmdb.MapFullError, lmdb.Error
        self._path = os.path.join(directory, "data.mdb")
        size = os.path.getsize(self._path) if os.path.exists(self._path) else 0
        self._database = lmdb.open(self._path, subdir=False, lock=False, map_size=max(2 * size, _FIRST_MAP))
        self._batch: list[tuple[bytes, bytes]] = []
        self._batch_bytes = 0

    def add(self, index: int, image: bytes, label: int) -> None:
        self._batch.append((b"%d" % index, b"\x92" + _bytes(image) + _number(label)))
        self._batch_bytes += len(image)
        if self._batch_bytes > _BATCH:
            self._commit()

    def flush(self) -> dict[str, Any]:
        self._commit()
        with self._as_os_error():
            self._database.sync(True)
        return {}

    def finish(self, contents: Contents) -> None:
        count = contents.images
        keys = b"".join(_bytes(b"%d" % key) for key in range(count))
        array = struct.pack(">BI", 0xDD, count)
        self._batch += [(LENGTH, _number(count)), (CLASSES, _number(contents.num_classes)), (KEYS, array + keys)]
        self.flush()
        self._database.close()
        flush_path(self._path)

    @staticmethod
    def reader(directory: str, num_classes: int, size: tuple[int, int]) -> Source:
        return LMDBSource(directory, num_classes)

    def _commit(self) -> None:
        while True:
            try:
                with self._as_os_error(), self._database.begin(write=True) as transaction:
                    for key, value in self._batch:
                        transaction.put(key, value)
                break
            except self._full:
                self._database.set_mapsize(2 * self._database.info()["map_size"])
        self._batch, self._batch_bytes = [], 0

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        """lmdb's own errors, such as that of a full disk, become OSError; not that of a map that must grow."""
        try:
            yield
        except self._full:
            raise
        except self._error as error:
            raise OSError(f"{error}; is the disk full?") from error


def _bytes(data: bytes) -> bytes:
    """Bytes as msgpack."""
    for kind, code, most in ((0xC4, ">BB", 2**8), (0xC5, ">BH", 2**16), (0xC6, ">BI", 2**32)):
        if len(data) < most:
            return struct.pack(code, kind, len(data)) + data
    raise DataError(f"an image of {len(data)} bytes cannot be written")


def _number(value: int) -> bytes:
    """A non-negative integer as msgpack."""
    if value < 128:
        return bytes([value])
    for kind, code, most in ((0xCC, ">BB", 2**8), (0xCD, ">BH", 2**16), (0xCE, ">BI", 2**32)):
        if value < most:
            return struct.pack(code, kind, value)
    raise DataError(f"the number {value} cannot be written")
