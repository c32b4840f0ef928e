"""The same images in every container, written here from the descriptions of the formats, not by PLSC's own writers."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc.errors import DataError

MAGIC = b"\x0a\x23\xd7\xce"


def images(count: int, side: int = 8, seed: int = 0) -> list[bytes]:
    """Encoded images, PNG and JPEG by turns; each another one."""
    found = []
    for number in range(count):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (side, side, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, ("PNG", "JPEG")[number % 2])
        found.append(file.getvalue())
    return found


def part(kind: int, data: bytes) -> bytes:
    """One part of a record."""
    return MAGIC + struct.pack("<I", kind << 29 | len(data)) + data + bytes(-len(data) % 4)


def record(data: bytes) -> bytes:
    """A whole record, cut where the magic stands at a multiple of four."""
    places = [place for place in range(0, len(data) - 3, 4) if data[place : place + 4] == MAGIC]
    if not places:
        return part(0, data)
    starts, ends = [0, *(place + 4 for place in places)], [*places, len(data)]
    kinds = [1, *[2] * (len(places) - 1), 3]
    return b"".join(part(kind, data[start:end]) for kind, start, end in zip(kinds, starts, ends))


def image_data(labels, picture: bytes, key: int = 0) -> bytes:
    """The data of a record: one label, or a list of several."""
    if isinstance(labels, (list, tuple)):
        return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0.0, key, 0, *labels) + picture
    return struct.pack("<IfQQ", 0, labels, key, 0) + picture


def write_records(directory: Path, data: dict[int, bytes], idx: bool = True) -> Path:
    """train.rec, and with ``idx`` train.idx, of the data by their keys, in the order given."""
    directory.mkdir(parents=True, exist_ok=True)
    lines, whole = [], b""
    for key, each in data.items():
        lines.append(f"{key}\t{len(whole)}\n")
        whole += record(each)
    (directory / "train.rec").write_bytes(whole)
    if idx:
        (directory / "train.idx").write_text("".join(lines))
    return directory


def insightface(pictures: list[bytes], labels: list[int]) -> dict[int, bytes]:
    """Records as insightface writes them: images, then identities, the header last; two labels an image."""
    count, classes = len(pictures), max(labels) + 1
    data = {key: image_data([labels[key - 1], 0], pictures[key - 1], key) for key in range(1, count + 1)}
    for number in range(classes):
        data[count + 1 + number] = image_data([1, count + 1], b"", count + 1 + number)
    data[0] = image_data([count + 1, count + 1 + classes], b"", 0)
    return data


def plain(pictures: list[bytes], labels: list[int], first: int = 0) -> dict[int, bytes]:
    """Records as im2rec writes them: one label each, keys from ``first`` on."""
    return {first + i: image_data(labels[i], pictures[i], i) for i in range(len(pictures))}


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_shards(directory: Path, pictures: list[bytes], labels: list[int], shards: int = 2, kind=None) -> Path:
    """train-0000.tar, ... by Python's tarfile: labels in .cls, or in .json as a number, or in a mapping, by turns."""
    directory.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        path = directory / f"train-{shard:04d}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT if kind is None else kind) as tar:
            for number in range(shard * len(labels) // shards, (shard + 1) * len(labels) // shards):
                name, label = f"{number:06d}", labels[number]
                add_member(tar, f"{name}.{('png', 'jpg')[number % 2]}", pictures[number])
                forms = ((".cls", f"{label}"), (".cls", f"{label}\n"), (".json", f"{label}"),
                         (".json", json.dumps({"label": label, "who": "x"})))  # fmt: skip
                ending, text = forms[number % 4]
                add_member(tar, name + ending, text.encode())
    return directory


def msgpack_pair(picture: bytes, label: int) -> bytes:
    """(image, label) as msgpack writes it: the shortest form of each."""
    forms = ((2**8, b"\xc4", ">B"), (2**16, b"\xc5", ">H"), (2**32, b"\xc6", ">I"))
    code, kind = next((code, kind) for most, code, kind in forms if len(picture) < most)
    return b"\x92" + code + struct.pack(kind, len(picture)) + picture + msgpack_number(label)


def msgpack_number(value: int) -> bytes:
    """A whole number as msgpack writes it."""
    if -32 <= value < 128:
        return struct.pack(">b", value)
    forms = ((2**8, b"\xcc", ">B"), (2**16, b"\xcd", ">H"), (2**32, b"\xce", ">I"), (2**64, b"\xcf", ">Q"))
    return next(code + struct.pack(kind, value) for most, code, kind in forms if value < most)


def write_lmdb(directory: Path, pictures: list[bytes], labels: list[int], more: dict | None = None) -> Path:
    """data.mdb by the lmdb package: keys in the order of numbers, `__len__`, `__classnum__`, `__keys__`."""
    import lmdb

    directory.mkdir(parents=True, exist_ok=True)
    values = {b"%d" % key: msgpack_pair(*pair) for key, pair in enumerate(zip(pictures, labels))}
    keys = b"\xdc" + struct.pack(">H", len(labels)) + b"".join(b"\xc4" + bytes([len(key)]) + key for key in values)
    said = {b"__len__": msgpack_number(len(labels)), b"__classnum__": msgpack_number(max(labels) + 1)}
    said[b"__keys__"] = keys
    with lmdb.open(str(directory / "data.mdb"), subdir=False, lock=False, map_size=1 << 30) as database:
        for key, value in {**values, **said, **(more or {})}.items():
            with database.begin(write=True) as transaction:
                transaction.delete(key) if value is None else transaction.put(key, value)
    return directory


def write_all(root: Path, pictures: list[bytes], labels: list[int]) -> dict[str, dict]:
    """The same images, in the same order, in every container: {name: the settings of section data}.

    labels: ascending, so that a folder of identities has the same order.
    """
    assert labels == sorted(labels)
    names = [f"{label:03d}/{number:04d}.png" for number, label in enumerate(labels)]
    for name, picture in zip(names, pictures):
        (root / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "files" / name).write_bytes(picture)
    lists = {"label.txt": range(len(labels)), "first.txt": range(7), "rest.txt": range(7, len(labels))}
    for file, which in lists.items():
        (root / "files" / file).write_text("".join(f"{names[number]}\t{labels[number]}\n" for number in which))
    write_records(root / "insightface", insightface(pictures, labels))
    write_records(root / "without_idx", insightface(pictures, labels), idx=False)
    write_records(root / "im2rec", plain(pictures, labels, first=1))
    write_shards(root / "shards", pictures, labels, 3)
    write_lmdb(root / "lmdb", pictures, labels)
    write_parquet(root / "parquet" / "train.parquet", pictures, labels, rows=5)
    write_base64(root / "base64", pictures, labels)
    write_kv(root / "kv", pictures, labels)
    files, parts = str(root / "files"), [{"label_file": "first.txt"}, {"label_file": "rest.txt", "class_offset": 0}]
    found = {
        "list": {"dataset": "list", "dataset_dir": files},
        "folder": {"dataset": "folder", "dataset_dir": files},
        "several": {"sources": [{"dataset": "list", "dataset_dir": files, **part} for part in parts]},
    }
    found["kv"] = {"dataset": "kv", "dataset_dir": str(root / "kv")}
    for name in ("insightface", "without_idx", "im2rec", "shards", "lmdb", "parquet", "base64"):  # recognised by auto
        found[name] = {"dataset_dir": str(root / name)}
    return found


def write_parquet(path: Path, pictures: list, labels: list, rows: int = 3, **columns) -> Path:
    """A Parquet file by pyarrow, with row groups of ``rows``. columns: other types of "image" and "label"."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"image": pyarrow.binary(), "label": pyarrow.int64(), **columns}
    arrays = {"image": pyarrow.array(pictures, kinds["image"]), "label": pyarrow.array(labels, kinds["label"])}
    parquet.write_table(pyarrow.table(arrays), path, row_group_size=rows)
    return path


def write_base64(directory: Path, pictures: list[bytes], labels: list[int], files: int = 2) -> Path:
    """file_list.txt, base64_rank_0, ...: as PLSC 0.x's tool writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"base64_rank_{rank}" for rank in range(files)]
    for rank, name in enumerate(names):
        which = range(rank * len(labels) // files, (rank + 1) * len(labels) // files)
        lines = [f"{base64.b64encode(pictures[number]).decode()}\t{labels[number]}\n" for number in which]
        (directory / name).write_text("".join(lines))
    (directory / "file_list.txt").write_text("".join(f"{name}\n" for name in names))
    return directory


def key_value(key: bytes, value: bytes) -> bytes:
    """A KV file of PLSC 2.2."""
    return struct.pack("<I", len(key)) + key + struct.pack("<I", len(value)) + value


def write_kv(directory: Path, pictures: list[bytes], labels: list[int]) -> Path:
    """images/00000000.bin, ..., which label.txt names."""
    (directory / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{number:08d}.bin" for number in range(len(labels))]
    for number, (name, picture) in enumerate(zip(names, pictures)):
        (directory / name).write_bytes(key_value(name.encode(), pickle.dumps(picture, number % 5)))
    (directory / "label.txt").write_text("".join(f"{name}\t{label}\n" for name, label in zip(names, labels)))
    return directory


def opened(source):
    """The source as a run has it before it reads."""
    source.check(check_files=True)
    source.open_files()
    return source


def contents(source) -> list:
    return [source.read(index) for index in range(len(source))]


def refusal(make) -> str:
    """The one line with which ``make()``, or reading all of the source that it returns, is refused."""
    with pytest.raises(DataError) as caught:
        contents(opened(make()))
    text = str(caught.value)
    assert "\n" not in text and len(text) < 700
    return text
