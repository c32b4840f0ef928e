"""Data sets of many images of a few bytes, for the index only; no image of them can be decoded.

Each writer makes ``count`` images of CLASSES classes in a directory and returns the settings of section data.
"""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CLASSES = 1_000_000
_BLOCK = 1_000_000
_RECORD_BYTES = 36


def _labels(count: int) -> Iterator[tuple[int, int]]:
    """(number, label) of each image; the images of a class are neighbours."""
    return ((number, number * CLASSES // count) for number in range(count))


def _records(directory: Path, order: np.ndarray, step: int) -> dict:
    """train.rec and train.idx, image order[i], with the key order[i] * step, at place i of the file."""
    kinds = ("magic", "<u4"), ("length", "<u4"), ("flag", "<u4"), ("label", "<f4"), ("id", "<u8"), ("id2", "<u8")
    dtype = np.dtype([*kinds, ("image", "<u4")])
    assert dtype.itemsize == _RECORD_BYTES
    with open(directory / "train.rec", "wb") as records, open(directory / "train.idx", "wb") as listing:
        for first in range(0, len(order), _BLOCK):
            number = order[first : first + _BLOCK]
            data = np.zeros(len(number), dtype)
            data["magic"], data["length"] = 0xCED7230A, _RECORD_BYTES - 8
            data["label"], data["id"] = number * CLASSES // len(order), number + 1
            records.write(data.tobytes())
            places = (first + np.arange(len(number))) * _RECORD_BYTES
            listing.write("".join(map("%d\t%d\n".__mod__, zip((number * step).tolist(), places.tolist()))).encode())
    return {"dataset": "recordio"}


def write_recordio(directory: Path, count: int) -> dict:
    return _records(directory, np.arange(count), 1)


def write_shuffled_recordio(directory: Path, count: int) -> dict:
    """The images in random order, with keys that have gaps, as im2rec writes a shuffled list."""
    return _records(directory, np.random.default_rng(0).permutation(count), 2)


def write_lmdb(directory: Path, count: int) -> dict:
    import lmdb

    with lmdb.open(str(directory / "data.mdb"), subdir=False, lock=False, map_size=1 << 40, sync=False) as database:
        for first in range(0, count, _BLOCK):
            with database.begin(write=True) as transaction:
                for number in range(first, min(first + _BLOCK, count)):
                    label = struct.pack(">BI", 0xCE, number * CLASSES // count)
                    transaction.put(b"%d" % number, b"\x92\xc4\x04jpeg" + label)
    return {"dataset": "lmdb"}


def write_tar(directory: Path, count: int) -> dict:
    """Shards of a million images, two members each."""
    headers = {ending: _tar_header(ending) for ending in ("jpg", "cls")}
    for first in range(0, count, _BLOCK):
        with open(directory / f"{first // _BLOCK:06d}.tar", "wb", 1 << 20) as file:
            for number in range(first, min(first + _BLOCK, count)):
                for ending, content in (("jpg", b"jpeg"), ("cls", b"%d" % (number * CLASSES // count))):
                    file.write(headers[ending](number, len(content)) + content.ljust(512, b"\0"))
            file.write(bytes(1024))
    return {"dataset": "tar"}


def _tar_header(ending: str) -> Callable[[int, int], bytes]:
    empty = bytearray(512)
    empty[100:108], empty[156:157] = b"0000644\0", b"0"
    empty[257:265] = b"ustar\x0000"

    def header(number: int, size: int) -> bytes:
        found = empty.copy()
        name = b"%010d.%s" % (number, ending.encode())
        found[: len(name)], found[124:136], found[148:156] = name, b"%011o\0" % size, b" " * 8
        found[148:156] = b"%06o\0 " % sum(found)
        return bytes(found)

    return header


def write_parquet(directory: Path, count: int) -> dict:
    """Files of a million rows, in row groups of a thousand."""
    import pyarrow
    from pyarrow import parquet

    for first in range(0, count, _BLOCK):
        number = np.arange(first, min(first + _BLOCK, count))
        images = pyarrow.array([b"%010d" % each for each in number.tolist()], pyarrow.binary())
        table = pyarrow.table({"image": images, "label": pyarrow.array(number * CLASSES // count)})
        parquet.write_table(table, directory / f"{first // _BLOCK:06d}.parquet", row_group_size=1000)
    return {"dataset": "parquet"}


def write_base64(directory: Path, count: int) -> dict:
    with open(directory / "base64_rank_0", "wb", 1 << 20) as file:
        for number, label in _labels(count):
            file.write(b"%s\t%d\n" % (base64.b64encode(b"%010d" % number), label))
    (directory / "file_list.txt").write_text("base64_rank_0\n")
    return {"dataset": "base64"}


def write_list(directory: Path, count: int) -> dict:
    """Paths of 20 bytes, as those of VGGFace2. The images are not there."""
    with open(directory / "label.txt", "wb", 1 << 20) as file:
        file.writelines(b"n%07d/%07d.jpg\t%d\n" % (label, number % 10**7, label) for number, label in _labels(count))
    return {"dataset": "list"}


def write_several(directory: Path, count: int) -> dict:
    """Two halves: a list, and a RecordIO file."""
    parts = []
    for name, write in (("one", write_list), ("two", write_recordio)):
        (directory / name).mkdir()
        parts.append({"dataset_dir": str(directory / name), **write(directory / name, count // 2)})
    return {"sources": parts}


def write_folder(directory: Path, count: int) -> dict:
    """A hundred images in each folder."""
    for first in range(0, count, 100):
        folder = directory / f"n{first // 100:07d}"
        folder.mkdir()
        for number in range(first, min(first + 100, count)):
            os.close(os.open(folder / f"{number % 10**7:07d}.jpg", os.O_CREAT | os.O_WRONLY))
    return {"dataset": "folder"}


WRITERS = {
    "recordio": write_recordio, "shuffled": write_shuffled_recordio, "lmdb": write_lmdb, "tar": write_tar,
    "parquet": write_parquet, "base64": write_base64, "list": write_list, "several": write_several,
    "folder": write_folder,
}  # fmt: skip
