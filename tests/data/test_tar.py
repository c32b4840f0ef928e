"""Tar shards by WebDataset's conventions: the images of the list, and what is damaged or hostile is one line."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile

import numpy as np
import pytest

from plsc.data.containers import files
from plsc.data.containers.files import Scanner
from plsc.data.containers.tar import members
from plsc.data.record import difference
from plsc.data.sources.auto import Auto
from plsc.data.sources.tar import TarSource, find_shards
from tests.data import container_kit
from tests.data.container_kit import add_member, contents, images, write_shards

LABELS = [3, 0, 0, 2, 4, 3, 1, 1, 0]
PICTURES = images(len(LABELS))


def opened(directory, classes: int | None = 5, **options) -> TarSource:
    return container_kit.opened(TarSource(directory, classes, **options))


def refusal(directory, **options) -> str:
    return container_kit.refusal(lambda: opened(directory, **options))


@pytest.mark.parametrize("shards", [1, 2, 9])
@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_give_the_images_of_the_list(tmp_path, shards, kind, monkeypatch):
    source = opened(write_shards(tmp_path, PICTURES, LABELS, shards, kind))
    assert contents(source) == list(zip(PICTURES, LABELS))
    monkeypatch.setattr(files, "MOST_OPEN", 2)  # files are closed and opened again
    some = opened(tmp_path)
    for index in np.random.default_rng(0).integers(0, 9, 50).tolist():
        assert some.read(index) == (PICTURES[index], LABELS[index])
        assert len(some.files._open) <= 2


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tmp_path, kind):
    """Long names in each format, directories, files of every length around a block, names that are no ASCII."""
    names = ["a", "d/b.x.y", "long/" * 30 + "name", "x" * 99, "y" * 100, "z" * 80 + "/" + "w" * 60, "é/ü", "end"]
    if kind != tarfile.USTAR_FORMAT:
        names += ["v" * 180, "long/" * 100 + "u" * 120]
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as tar:
        for number, name in enumerate(names):
            add_member(tar, name, bytes([number + 1]) * (number * 171))
            if number == 2:
                folder = tarfile.TarInfo("folder")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
    with tarfile.open(tmp_path / "x.tar") as tar:
        expected = [(m.name.encode(), m.offset_data, m.size) for m in tar if m.isfile()]
    with Scanner(str(tmp_path / "x.tar")) as scanner:
        assert [(m.name, m.offset, m.size) for m in members(scanner)] == expected


def test_a_name_beyond_eight_gigabytes_is_read_as_tarfile_writes_it():
    """GNU's binary sizes and pax's: a member of 9 GB ends behind a file that is sparse, and so is not written."""
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member = tarfile.TarInfo("x.jpg")
        member.size = 9 << 30
        header = member.tobuf(format=kind)
        with io.BytesIO(header) as file:
            scanner = type("Memory", (), {"path": "x.tar", "size": len(header) + (9 << 30) + 512, "at": None})()
            scanner.at = lambda offset, size, file=file: file.getvalue()[offset : offset + size] or bytes(512)
            found = list(members(scanner))
        assert [(m.name, m.size, m.offset) for m in found] == [(b"x.jpg", 9 << 30, len(header))]


def tar_of(tmp_path, *samples) -> object:
    """x.tar of (name, content)."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, content in samples:
            add_member(tar, name, content)
    return tmp_path


def test_what_makes_a_sample(tmp_path):
    tar_of(tmp_path, ("./a/1.seg.png", b"not used"), ("./a/1.JPG", b"one"), ("./a/1.cls", b" 4\n"),
           ("a/._1.jpg", b"mac"), ("b/1.json", b'{"label": 2, "more": [1]}'), ("b/1.txt", b"a text"),
           ("b/1.webp", b"two"), ("c.png", b"three"), ("c.json", b"0"), ("c.cls", b"0"))  # fmt: skip
    assert contents(opened(tmp_path)) == [(b"one", 4), (b"two", 2), (b"three", 0)]
    tar_of(tmp_path, ("1.jpg", b"one"), ("1.json", b'{"label": "x", "id": 3}'))
    assert contents(opened(tmp_path, label_key="id")) == [(b"one", 3)]
    assert "holds no class: it must hold a whole number, or a mapping with 'label'" in refusal(tmp_path)


@pytest.mark.parametrize("samples, said", [
    ([("1.jpg", b"x")], "byte 0: sample '1' has no label: a member .cls, or .json"),
    ([("1.cls", b"0"), ("2.cls", b"0")], "byte 0: sample '1' has no image (.jpg, "),
    ([("README", b"x")], "sample 'README' has no image"),
    ([("1.jpg", b"x"), ("2.jpg", b"x"), ("1.cls", b"0")], "sample '1' has no label"),
    ([("1.jpg", b"x"), ("1.png", b"x")], "has two images, '1.jpg' and '1.png'"),
    ([("1.jpg", b"x"), ("1.cls", b"0"), ("1.json", b"1")], "has two labels, 0 and 1"),
    ([("1.jpg", b"x"), ("1.cls", b"one")], "'1.cls' holds no class: it must hold a whole number"),
    ([("1.jpg", b"x"), ("1.cls", b"")], "holds no class"), ([("1.jpg", b"x"), ("1.cls", b"1.0")], "holds no class"),
    ([("1.jpg", b"x"), ("1.cls", b"99999999999")], "holds no class"),
    ([("1.jpg", b"x"), ("1.cls", b"2147483648")], "holds no class"),
    ([("1.jpg", b"x"), ("1.json", b"[" * 100_000)], "holds no class"),
    ([("1.jpg", b"x"), ("1.json", b"true")], "holds no class"), ([("1.jpg", b"x"), ("1.json", b"1e400")], "no class"),
    ([("1.jpg", b"x"), ("1.json", b"{}")], "no class"), ([("1.jpg", b"x"), ("1.json", b" " * 2**21)], "2097152 bytes"),
    ([("1.jpg", b"x"), ("1.cls", b"5")], "1 of 1 images have a label outside 0..4"),
    ([("1.jpg", b"x"), ("1.cls", b"-1")], "1 of 1 images have a label outside 0..4"),
    ([("a/../../etc/1.jpg", b"x")], "member 'a/../../etc/1.jpg' has `..` in its name"),
    ([("..", b"x")], "member '..' has `..`"),
    ([("1\n2.jpg", b"x")], r"sample '1\n2' has no label"),
])  # fmt: skip
def test_samples_that_cannot_be_used(tmp_path, samples, said):
    text = refusal(tar_of(tmp_path, *samples))
    assert said in text and ("x.tar" in text or "images have a label" in text)


@pytest.mark.parametrize("kind, said", [
    (tarfile.SYMTYPE, "is a symbolic link"), (tarfile.LNKTYPE, "is a hard link"), (tarfile.CHRTYPE, "is a device"),
    (tarfile.BLKTYPE, "is a device"), (tarfile.FIFOTYPE, "is a pipe"), (tarfile.GNUTYPE_SPARSE, "is of the type 'S'"),
])  # fmt: skip
def test_links_and_devices(tmp_path, kind, said):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("1.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    assert f"member '1.jpg' {said}; a shard may hold regular files only" in refusal(tmp_path)


def with_header(tmp_path, change) -> object:
    """A shard whose first header is changed, with a right checksum."""
    write_shards(tmp_path, PICTURES, LABELS, 1)
    path = tmp_path / "train-0000.tar"
    whole = bytearray(path.read_bytes())
    change(whole)
    whole[148:156] = b" " * 8
    whole[148:156] = b"%06o\0 " % sum(whole[:512])
    path.write_bytes(bytes(whole))
    return tmp_path


def put(offset: int, data: bytes):
    return lambda whole: whole.__setitem__(slice(offset, offset + len(data)), data)


@pytest.mark.parametrize("change, said", [
    (put(124, b"77777777777\0"), "a member of 8589934591 bytes goes beyond the end of the file"),
    (put(124, b"\x80" + b"\xff" * 11), "goes beyond the end of the file"),
    (put(124, b"\xff" * 12), "its size is no number"), (put(124, b"12x4567\0    "), "its size is no number"),
    (put(156, b"L"), None), (put(156, b"x"), "a damaged pax header"),
])  # fmt: skip
def test_headers_that_cannot_be(tmp_path, change, said):
    text = refusal(with_header(tmp_path, change))
    assert (said or "train-0000.tar") in text and "byte 0" in text or said is None


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_name_of_eight_gigabytes(tmp_path, kind, monkeypatch):
    """The file is as long as it says, but for its contents: nothing is read of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # the index of a file of this size would be in it
    with_header(tmp_path, lambda whole: (put(156, kind)(whole), put(124, b"77777777777\0")(whole)))
    with open(tmp_path / "train-0000.tar", "r+b") as file:
        file.truncate((8 << 30) + 2048)
    assert "a name or its like has 8589934591 bytes; it may have 1048576" in refusal(tmp_path)
    assert not [name for name in os.listdir(tmp_path / "cache" / "plsc" / "index") if name.startswith("lock-")]


@pytest.mark.parametrize("text, said", [
    (b"0 path=x\n", "damaged"), (b"999999 path=x\n", "damaged"), (b"x path=y\n", "damaged"), (b"9 path=xy", "damaged"),
    (b"-5 path=x\n", "damaged"), (b"9 pathxx\n", "damaged"), (b"11 size=-1\n", "gives the size '-1'"),
    (b"11 size=1x\n", "gives the size '1x'"), (b"22 GNU.sparse.major=1\n", "a sparse file"),
    (b"29 size=99999999999999999999\n", "gives the size"), (b"27 size=888888888888888888\n", "goes beyond the end"),
])  # fmt: skip
def test_damaged_pax_headers(tmp_path, text, said):
    header = tarfile.TarInfo("p")
    header.type, header.size = tarfile.XHDTYPE, len(text)
    body = header.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)
    image = tarfile.TarInfo("1.jpg")
    image.size = 3
    (tmp_path / "x.tar").write_bytes(body + image.tobuf(tarfile.USTAR_FORMAT) + b"abc" + bytes(509 + 1024))
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("cut", [1024, 1025, 1500, 1537, 2048, 2560])
def test_a_shard_that_was_not_copied_whole(tmp_path, cut):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, content in (("1.jpg", b"x" * 700), ("1.cls", b"0")):
            add_member(tar, name, content)
    size = 512 + 1024 + 512 + 512  # without the zeros at its end
    with open(tmp_path / "x.tar", "r+b") as file:
        file.truncate(size + 1024 - cut)
    assert "it was not copied whole" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"x" * 2000, b"PK\x03\x04" + bytes(600), b"\x1f\x8b\x08" + bytes(600), b""])
def test_what_is_no_tar(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    text = refusal(tmp_path)
    words = "gunzip it" if content.startswith(b"\x1f") else "no header of a tar" if content else "not copied whole"
    assert words in text


def test_a_damaged_byte_anywhere_in_a_header_is_found(tmp_path):
    write_shards(tmp_path, PICTURES, LABELS, 1)
    path = tmp_path / "train-0000.tar"
    whole = path.read_bytes()
    for place in range(0, 512, 7):
        changed = bytearray(whole)
        changed[place] ^= 4
        path.write_bytes(bytes(changed))
        assert "byte 0" in refusal(tmp_path)


def test_which_files_are_shards(tmp_path):
    write_shards(tmp_path, PICTURES, LABELS, 3)
    (tmp_path / "other.tar").write_bytes(b"x")
    (tmp_path / ".hidden.tar").write_bytes(b"x")
    names = [f"train-000{number}.tar" for number in range(3)]
    for pattern in ("train-*.tar", "train-{0000..0002}.tar", "train-????.tar"):
        assert [os.path.basename(path) for path in find_shards(str(tmp_path), pattern)] == names
        assert contents(opened(tmp_path, shards=pattern)) == list(zip(PICTURES, LABELS))
    assert len(opened(tmp_path, shards="train-{0001..0002}.tar")) == 6
    assert "train-0003.tar': cannot be opened: No such file" in refusal(tmp_path, shards="train-{0000..0003}.tar")
    assert "has no file 'x*.tar'; check" in refusal(tmp_path, shards="x*.tar")
    assert "one range in braces" in refusal(tmp_path, shards="train-{3..1}.tar")
    assert "one range in braces" in refusal(tmp_path, shards="train-{0..999999999999}.tar")
    assert "one range in braces" in refusal(tmp_path, shards="{0..1}{0..1}.tar")
    assert "cannot be listed: No such file" in refusal(tmp_path / "nowhere")


def test_its_directory_is_recognised_and_classes_are_counted(tmp_path):
    write_shards(tmp_path, PICTURES, LABELS, 3)
    assert Auto(tmp_path, "label.txt").choose().line == f"data.dataset: auto takes tar: {tmp_path} has train-0000.tar"
    assert opened(tmp_path, None).num_classes == 5


def test_the_record_tells_other_labels_and_a_new_shard(tmp_path):
    def of(count, labels=LABELS, only=None):
        for old in tmp_path.glob("*.tar"):
            old.unlink()
        for shard in range(count):
            write_shards(tmp_path, PICTURES[3 * shard : 3 * shard + 3], labels[3 * shard : 3 * shard + 3], 1)
            (tmp_path / "train-0000.tar").rename(tmp_path / f"s{shard}.tar")
        return {"kind": "tar", **opened(tmp_path).record(only)}

    old = of(2)
    assert difference(old, of(2)) is None
    assert difference(old, of(2, [4, *LABELS[1:]])).relabelled
    longer = difference(old, of(3), lambda count: of(3, only=count))
    assert not longer.relabelled and "whose beginning is the same" in longer.text


def test_sixteen_bytes_an_image(tmp_path):
    """A shard of 20,000 samples, made of blocks: what is kept of it, and nothing of its names."""
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        add_member(tar, "000000.jpg", b"abcd")
        add_member(tar, "000000.cls", b"3")
    one = (tmp_path / "one.tar").read_bytes()[:2048]
    (tmp_path / "one.tar").unlink()
    whole = np.tile(np.frombuffer(one, np.uint8), (20_000, 1))
    for start in (0, 1024):
        for number in range(len(whole)):
            whole[number, start : start + 6] = np.frombuffer(b"%06d" % number, np.uint8)
        whole[:, start + 148 : start + 156] = 32
        sums = whole[:, start : start + 512].sum(axis=1)
        for number, value in enumerate(sums.tolist()):
            whole[number, start + 148 : start + 156] = np.frombuffer(b"%06o\0 " % value, np.uint8)
    (tmp_path / "x.tar").write_bytes(whole.tobytes() + bytes(1024))
    source = opened(tmp_path)
    assert len(source) == 20_000 and source.read(19_999) == (b"abcd", 3)
    assert sum(array.nbytes for array in vars(source).values() if isinstance(array, np.ndarray)) == 16 * 20_000
    assert source.name(7).endswith("x.tar': image 7 (byte 14848)") and struct.calcsize("I") == 4


def with_index(directory, shards: int = 3, **changes) -> dict:
    """Shards, and an index of them in reversed order."""
    write_shards(directory, PICTURES, LABELS, shards)
    listed = [{"url": f"train-{number:04d}.tar", "nsamples": 9 // shards, "filesize": 0} for number in range(shards)]
    for shard in listed:
        shard["filesize"] = os.path.getsize(directory / shard["url"])
    return {"wids_version": 1, "name": "faces", "shardlist": listed[::-1], **changes}


def write_index(path, index) -> None:
    path.write_text(index if isinstance(index, str) else json.dumps(index))


def test_an_index_of_wids_says_which_shards_in_which_order(tmp_path):
    index = with_index(tmp_path / "data")
    write_index(tmp_path / "data" / "index.json", index)
    expected = [pair for shard in (2, 1, 0) for pair in list(zip(PICTURES, LABELS))[3 * shard : 3 * shard + 3]]
    assert contents(opened(tmp_path / "data", shards="index.json")) == expected
    for shard in index["shardlist"]:  # another directory, whole paths, no counts
        shard.update({"url": str(tmp_path / "data" / shard["url"])})
        del shard["nsamples"], shard["filesize"]
    write_index(tmp_path / "elsewhere.json", index)
    assert contents(opened(tmp_path, shards="elsewhere.json")) == expected
    parts = [{"shardlist": [{"url": f"file:train-000{number}.tar", "weight": 1}], "base": "data"} for number in (2, 0)]
    write_index(tmp_path / "parts.json", {"wids_version": 1, "datasets": parts})
    assert contents(opened(tmp_path, shards="parts.json")) == expected[:3] + expected[6:]


def test_shards_that_are_not_as_their_index_says(tmp_path):
    for key, said in (("nsamples", "has 3 images, the index of shards says 4"), ("filesize", "bytes, the index")):
        index = with_index(tmp_path)
        index["shardlist"][1][key] += 1
        write_index(tmp_path / "index.json", index)
        text = refusal(tmp_path, shards="index.json")
        assert said in text and "train-0001.tar" in text
    (tmp_path / "train-0001.tar").unlink()
    assert "train-0001.tar': cannot be opened: No such file" in refusal(tmp_path, shards="index.json")


@pytest.mark.parametrize("index, said", [
    ("{", "index.json': not JSON"), ("[]", "no index of wids, version 1 (wids_version is None)"), ("", "not JSON"),
    ({"wids_version": 2, "shardlist": []}, "wids_version is 2"), ({"wids_version": 1}, "lists no shards"),
    ({"shardlist": []}, "lists no shards"), ({"shardlist": {}}, 'has no list "shardlist"'),
    ({"shardlist": ["x.tar"]}, "shardlist[0]: is 'x.tar'; it must be a mapping"),
    ({"shardlist": [{"url": 3}]}, "shardlist[0]: url: is 3; it must be a path"),
    ({"shardlist": [{"url": "https://host/x.tar"}]}, "'https://host/x.tar' is no file; copy the shards to a disk"),
    ({"shardlist": [{"url": "pipe:cat x.tar"}]}, "'pipe:cat x.tar' is no file"),
    ({"shardlist": [{"url": "x.tar", "nsamples": -1}]}, "nsamples is -1; it must be a whole number"),
    ({"shardlist": [{"url": "x.tar", "nsamples": True}]}, "nsamples is True"),
    ({"shardlist": [{"url": "x.tar", "weight": 0.5}]}, "weight 0.5: each image is read once an epoch"),
    ({"datasets": [{"source_url": "other.json"}]}, "datasets[0]: has no list"),
    ({"datasets": 7}, "datasets[0]: has no"),
    ({"shardlist": [{"url": "x.tar"}], "base": 1}, "base: is 1; it must be a path"), ("[" * 99999, "nested too deeply"),
])  # fmt: skip
def test_what_is_no_index_of_wids(tmp_path, index, said):
    write_index(tmp_path / "index.json", index)
    assert said in refusal(tmp_path, shards="index.json")
