"""Writes tar shards in WebDataset's conventions, with a `wids` index."""

from __future__ import annotations

import json
import os
import tarfile
from typing import Any, BinaryIO

from plsc.data.containers.tar import BLOCK
from plsc.data.packing.writer import Contents, Writer, ending_of
from plsc.data.sources import Source
from plsc.data.sources.tar import TarSource
from plsc.files.atomic import flush, write_bytes

SHARD_IMAGES = 10_000
_NAME = "train-{:06d}.tar"


class TarWriter(Writer):
    """Shards of SHARD_IMAGES images: `000000123.jpg`, `000000123.cls`."""

    def __init__(self, directory: str, state: dict[str, Any]) -> None:
        self._directory = directory
        self._shards: list[int] = list(state.get("shards", []))  # images of each that is begun
        self._file: BinaryIO | None = None
        if self._shards:
            self._open(state["bytes"])

    def add(self, index: int, image: bytes, label: int) -> None:
        if index % SHARD_IMAGES == 0:
            self._end_shard()
            self._shards.append(0)
            self._open(0)
        name = f"{index:09d}"
        self._write(f"{name}.{ending_of(image, f'image {index}')}", image)
        self._write(f"{name}.cls", str(label).encode())
        self._shards[-1] += 1

    def flush(self) -> dict[str, Any]:
        assert self._file is not None
        flush(self._file)
        return {"shards": self._shards, "bytes": os.fstat(self._file.fileno()).st_size}

    def finish(self, contents: Contents) -> None:
        self._end_shard()
        shards = [{"url": _NAME.format(number), "nsamples": images} for number, images in enumerate(self._shards)]
        text = json.dumps({"wids_version": 1, "shardlist": shards}, indent=1)
        write_bytes(os.path.join(self._directory, "index.json"), text.encode())

    @staticmethod
    def reader(directory: str, num_classes: int, size: tuple[int, int]) -> Source:
        return TarSource(directory, num_classes)

    def _open(self, num_bytes: int) -> None:
        """Continue the last shard after its first ``num_bytes``."""
        self._file = open(os.path.join(self._directory, _NAME.format(len(self._shards) - 1)), "ab")
        self._file.truncate(num_bytes)

    def _write(self, name: str, content: bytes) -> None:
        assert self._file is not None
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._file.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK))

    def _end_shard(self) -> None:
        if self._file is not None:
            self._file.write(bytes(2 * BLOCK))
            flush(self._file)
            self._file.close()
