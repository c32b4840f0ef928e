"""LMDB files that its library writes: every entry is found without it, and what is damaged is one line."""

from __future__ import annotations

import struct

import lmdb
import numpy as np
import pytest

from plsc.data.containers import image_values
from plsc.data.containers.files import Scanner
from plsc.data.containers.lmdb import entries
from plsc.data.record import difference
from plsc.data.sources.auto import Auto
from plsc.data.sources.lmdb import LMDBSource
from plsc.errors import DataError
from tests.data import container_kit
from tests.data.container_kit import contents, images, msgpack_number, msgpack_pair, write_lmdb

LABELS = [3, 0, 0, 2, 4, 3, 1, 1, 0, 2, 4, 0, 3]  # keys 10 to 12 come behind 1 in a tree
PICTURES = images(len(LABELS))


def opened(directory, classes: int | None = 5, **options) -> LMDBSource:
    return container_kit.opened(LMDBSource(directory, classes, **options))


def refusal(directory, **options) -> str:
    text = container_kit.refusal(lambda: opened(directory, **options))
    assert "data.mdb" in text
    return text


def found(path) -> dict:
    with Scanner(str(path)) as scanner:
        return {key: scanner.read(offset, size) for key, offset, size in entries(scanner)}


@pytest.mark.parametrize("count, size", [(0, 1), (1, 10), (50, 3000), (3000, 10), (400, 9000), (20_000, 2)])
def test_entries_are_those_of_the_library(tmp_path, count, size):
    """Trees of one to three levels; values in leaves and on pages of their own, changed and deleted ones."""
    rng = np.random.default_rng(count)
    values = {b"%d" % key: rng.bytes(int(rng.integers(size, 2 * size))) for key in range(count)}
    values.update({b"k" * 400: b"", b"long": rng.bytes(100_000)} if count else {})
    with lmdb.open(str(tmp_path / "x.mdb"), subdir=False, lock=False, map_size=1 << 28) as database:
        for _ in range(2):
            with database.begin(write=True) as transaction:
                for key, value in values.items():
                    transaction.put(key, value)
        gone = list(values)[::7]
        with database.begin(write=True) as transaction:
            for key in gone:
                transaction.delete(key)
    for key in gone:
        del values[key]
    assert found(tmp_path / "x.mdb") == values


def test_values_give_the_images_of_the_list(tmp_path):
    write_lmdb(tmp_path, PICTURES, LABELS)
    source = opened(tmp_path)
    assert contents(source) == list(zip(PICTURES, LABELS)) and source._keys is None
    assert Auto(tmp_path, "label.txt").choose().line == f"data.dataset: auto takes lmdb: {tmp_path} has data.mdb"
    assert source.name(3).endswith(f"data.mdb': key 3 at byte {source.positions[3]}")


def test_other_places_and_keys(tmp_path):
    write_lmdb(tmp_path / "train.lmdb", PICTURES, LABELS)
    assert contents(opened(tmp_path, file="train.lmdb")) == list(zip(PICTURES, LABELS))
    write_lmdb(tmp_path, PICTURES, LABELS, {b"5": None, b"__len__": None})
    source = opened(tmp_path)
    assert contents(source) == [pair for key, pair in enumerate(zip(PICTURES, LABELS)) if key != 5]
    assert ": key 6 at byte" in source.name(5)
    write_lmdb(tmp_path, PICTURES, LABELS, {b"007": msgpack_pair(b"x", 0), b"__len__": None})
    assert "has the key 7 twice" in refusal(tmp_path)


@pytest.mark.parametrize("part", [1, 3, 100])
def test_values_that_are_not_in_the_order_of_their_keys(tmp_path, monkeypatch, part):
    """Written in another order, so that their places in the file are in no order; the file is read in parts."""
    monkeypatch.setattr(image_values, "_PART", part)
    monkeypatch.setattr(image_values, "_BLOCK", 2)
    count = 60
    pictures, labels = [bytes([number]) * (300 * number % 5000 + 1) for number in range(count)], list(range(count))
    order = np.random.default_rng(0).permutation(count).tolist()
    with lmdb.open(str(tmp_path / "data.mdb"), subdir=False, lock=False, map_size=1 << 30) as database:
        for key in order:
            with database.begin(write=True) as transaction:
                transaction.put(b"%d" % (7 * key), msgpack_pair(pictures[key], labels[key]))
    source = opened(tmp_path, count)
    assert contents(source) == list(zip(pictures, labels)) and ": key 21 at byte" in source.name(3)
    assert not np.all(np.diff(source.positions) > 0)


def test_each_value_is_visited_once(monkeypatch):
    """Also where its offset is moved up meanwhile, into the next part of the file."""
    monkeypatch.setattr(image_values, "_PART", 5)
    monkeypatch.setattr(image_values, "_BLOCK", 3)
    offsets = np.random.default_rng(0).permutation(100) * 10
    visited = []
    for places in image_values._in_file_order(offsets):
        assert [int(offsets[place]) for place in places] == sorted(int(offsets[place]) for place in places)
        for place in places:
            visited.append(place)
            offsets[place] += 9
    assert sorted(visited) == list(range(100))


def test_classes_are_those_of_the_file_or_counted(tmp_path):
    write_lmdb(tmp_path, PICTURES, LABELS, {b"__classnum__": msgpack_number(9)})
    assert opened(tmp_path, None).num_classes == 9
    write_lmdb(tmp_path, PICTURES, LABELS, {b"__classnum__": msgpack_number(4)})  # the largest label, as some write
    assert opened(tmp_path, None).num_classes == 5
    assert "have a label outside 0..3" in refusal(tmp_path, classes=4)


@pytest.mark.parametrize("size", [1, 31, 32, 200, 255, 256, 3000, 65535, 65536, 200_000])
@pytest.mark.parametrize("label", [0, 127, 128, 255, 256, 65535, 65536, 2**31 - 1])
def test_every_form_of_msgpack(tmp_path, size, label):
    picture = bytes([label % 251]) * size
    write_lmdb(tmp_path, [picture], [label])
    assert contents(opened(tmp_path, 2**31)) == [(picture, label)]


@pytest.mark.parametrize("value", [
    b"\xdc\0\x02\xc4\x01xy"[:-1] + b"\x03", b"\x92\xa1x\x03", b"\x92\xd9\x01x\x03", b"\x92\xda\0\x01x\x03",
    b"\x92\xdb\0\0\0\x01x\x03", b"\x92\xc6\0\0\0\x01x\xd3" + bytes(7) + b"\x03", b"\x92\xc4\x01x\xd0\x03",
])  # fmt: skip
def test_forms_of_older_writers(tmp_path, value):
    write_lmdb(tmp_path, PICTURES, LABELS, {b"0": value})
    assert opened(tmp_path).read(0) == (b"x", 3)


@pytest.mark.parametrize("key, value, said", [
    (b"3", b"", "key 3: is not (image bytes, label): another schema"),
    (b"3", b"\x80\x04\x95pickle.", "key 3: is not (image bytes, label)"),
    (b"3", b"\x93\xc4\x01x\x03\x04", "is not (image bytes, label)"), (b"3", b"\x92\xc4\x05x\x03", "is not"),
    (b"3", b"\x92\xc6\xff\xff\xff\xffx\x03", "is not"), (b"3", b"\x92\xc4\x01x", "is not"), (b"3", b"\x92", "is not"),
    (b"3", b"\x92\xc6\0", "is not"), (b"3", b"\x92\x01\x02", "is not"), (b"3", b"\x92\xc4\x01x" + bytes(20), "is not"),
    (b"3", b"\x92\xc4\x01x\xc0", "has no class"), (b"3", b"\x92\xc4\x01x\x03\x03", "has no class"),
    (b"3", b"\x92\xc4\x01x\xcb" + bytes(8), "has no class"), (b"3", b"\x92\xc4\x01x\xcf" + b"\xff" * 8, "has no class"),
    (b"3", msgpack_pair(b"x", 5), "1 of 13 images have a label outside 0..4"),
    (b"3", msgpack_pair(b"x", -1), "1 of 13 images have a label outside 0..4"),
    (b"name", b"x", "key b'name': is no number: another schema"),
    (b"__len__", b"\x0c", "`__len__` says 12 images, there are 13"),
    (b"__len__", b"\xc0", "key __len__: is no whole number"), (b"__len__", b"\xff", "is no whole number"),
    (b"__classnum__", b"\xa1x", "key __classnum__: is no whole number"), (b"__classnum__", bytes(5000), "no whole num"),
])  # fmt: skip
def test_values_of_another_schema(tmp_path, key, value, said):
    write_lmdb(tmp_path, PICTURES, LABELS, {key: value})
    assert said in refusal(tmp_path)


def test_databases_in_the_database(tmp_path):
    with lmdb.open(str(tmp_path / "data.mdb"), subdir=False, lock=False, max_dbs=2, map_size=1 << 24) as database:
        database.open_db(b"train")
    assert "key b'train': is a database of its own" in refusal(tmp_path)


def pages_of(path) -> tuple[bytearray, int, list[int]]:
    """(the file, its page size, the numbers of branch and leaf pages)."""
    whole = bytearray(path.read_bytes())
    size = struct.unpack_from("<I", whole, 40)[0]
    flags = {number: struct.unpack_from("<H", whole, number * size + 10)[0] for number in range(2, len(whole) // size)}
    return whole, size, [number for number, kind in flags.items() if kind & 3]


@pytest.mark.parametrize("cut", [1, 4096, 100_000])
def test_a_file_that_was_not_copied_whole(tmp_path, cut):
    write_lmdb(tmp_path, [bytes(9000)] * 100, [0] * 100)
    whole = (tmp_path / "data.mdb").read_bytes()
    last = max(struct.unpack_from("<Q", whole, page * 4096 + 136)[0] for page in (0, 1))
    (tmp_path / "data.mdb").write_bytes(whole[: (last + 1) * 4096 - cut])
    assert "it was not copied whole" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x" * 10_000, bytes(300), b"SQLite format 3\0" + bytes(9000)])
def test_what_is_no_lmdb(tmp_path, content):
    (tmp_path / "data.mdb").write_bytes(content)
    assert "no head of an LMDB file" in refusal(tmp_path) if content else "not copied whole" in refusal(tmp_path)


@pytest.mark.parametrize("offset, value, said", [
    (20, 2, "version 2 of LMDB's format; 1 can be read"), (16, 7, "no head of an LMDB file"),
    (40, 1000, "pages of 1000 bytes"), (40, 1 << 30, "pages of 1073741824 bytes"), (92, 4 | 3 << 16, "another kind"),
    (92, 60_000 << 16, "a tree of 60000 levels"), (136, 2**31, "it was not copied whole"),
])  # fmt: skip
def test_heads_that_cannot_be(tmp_path, offset, value, said):
    write_lmdb(tmp_path, PICTURES, LABELS)
    whole = bytearray((tmp_path / "data.mdb").read_bytes())
    for page in (0, 4096):
        struct.pack_into("<I", whole, page + offset, value)
    (tmp_path / "data.mdb").write_bytes(bytes(whole))
    assert said in refusal(tmp_path)


def test_damage_anywhere_is_said_or_harmless(tmp_path):
    """Every byte of the first entries of every page of the tree, changed: an error of one line, or another image; and
    nothing that hangs or reads beyond the file."""
    write_lmdb(tmp_path, [bytes([n]) * (900 if n % 2 else 30) for n in range(200)], [0] * 200)
    whole, size, pages = pages_of(tmp_path / "data.mdb")
    assert len(pages) > 8
    said = set()
    for number in pages[:: len(pages) // 5]:
        for offset in [*range(0, 24), *range(size - 40, size)]:
            changed = bytearray(whole)
            changed[number * size + offset] ^= 0xFF
            (tmp_path / "data.mdb").write_bytes(bytes(changed))
            try:
                contents(opened(tmp_path))
            except DataError as error:
                assert "\n" not in str(error) and "data.mdb" in str(error)
                said.add(str(error).rpartition(": ")[2])
    assert len(said) > 2, said


def test_pages_that_lead_in_a_circle(tmp_path):
    write_lmdb(tmp_path, [bytes(900)] * 60, [0] * 60)
    whole, size, pages = pages_of(tmp_path / "data.mdb")
    heads = [struct.unpack_from("<QQQ", whole, page * size + 128) for page in (0, 1)]  # root, last page, transaction
    root = max(heads, key=lambda head: head[2])[0]
    assert struct.unpack_from("<H", whole, root * size + 10)[0] & 1, "the root is a branch"
    lower = struct.unpack_from("<H", whole, root * size + 12)[0]
    for node in struct.unpack_from(f"<{(lower - 16) // 2}H", whole, root * size + 16):
        struct.pack_into("<HHH", whole, root * size + node, root & 0xFFFF, root >> 16, 0)
    (tmp_path / "data.mdb").write_bytes(bytes(whole))
    assert "pages lead in a circle" in refusal(tmp_path)


def test_pages_and_entries_that_are_shared(tmp_path):
    """A few pages that lead to the same ones, or name an entry often, would be billions of entries."""
    write_lmdb(tmp_path, [bytes(900)] * 60, [0] * 60)
    whole, size, pages = pages_of(tmp_path / "data.mdb")
    heads = [struct.unpack_from("<QQQ", whole, page * size + 128) for page in (0, 1)]
    root = max(heads, key=lambda head: head[2])[0]
    lower = struct.unpack_from("<H", whole, root * size + 12)[0]
    first, second = struct.unpack_from(f"<{(lower - 16) // 2}H", whole, root * size + 16)[:2]
    twice = bytearray(whole)
    twice[root * size + second : root * size + second + 6] = whole[root * size + first : root * size + first + 6]
    (tmp_path / "data.mdb").write_bytes(bytes(twice))
    assert "pages lead in a circle" in refusal(tmp_path)
    node = struct.unpack_from("<H", whole, root * size + 16)[0]
    count = (size - 16) // 2
    struct.pack_into("<H", whole, root * size + 12, size)
    struct.pack_into(f"<{count}H", whole, root * size + 16, *[node] * count)
    (tmp_path / "data.mdb").write_bytes(bytes(whole))
    assert f"its {count} entries overlap" in refusal(tmp_path)


def test_the_record_tells_other_labels_and_what_was_added(tmp_path):
    def of(name, pictures, labels, count=None):
        return {"kind": "lmdb", "num_classes": 5, **opened(write_lmdb(tmp_path / name, pictures, labels)).record(count)}

    old = of("a", PICTURES[:9], LABELS[:9])
    assert difference(old, of("b", PICTURES[:9], LABELS[:9])) is None
    assert difference(old, of("c", PICTURES[:9], [4, *LABELS[1:9]])).relabelled
    longer = difference(old, of("d", PICTURES, LABELS), lambda count: of("d", PICTURES, LABELS, count))
    assert not longer.relabelled and "whose beginning is the same" in longer.text


def test_sixteen_bytes_an_image(tmp_path):
    write_lmdb(tmp_path, [b"x"] * 3, [0] * 3)
    with lmdb.open(str(tmp_path / "data.mdb"), subdir=False, lock=False, map_size=1 << 28) as database:
        with database.begin(write=True) as transaction:
            transaction.delete(b"__len__")
            for key in range(30_000):
                transaction.put(b"%d" % key, msgpack_pair(b"abcd", key % 5))
    source = opened(tmp_path)
    assert len(source) == 30_000 and source.read(29_999) == (b"abcd", 4)
    assert sum(value.nbytes for value in vars(source).values() if isinstance(value, np.ndarray)) == 16 * 30_000
