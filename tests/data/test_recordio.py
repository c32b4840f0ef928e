"""MXNet's RecordIO: every layout gives the images of the list, and what is damaged is one line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from plsc.data.containers import recordio
from plsc.data.containers.files import Scanner
from plsc.data.record import difference
from plsc.data.sources.auto import Auto
from plsc.data.sources.recordio import RecordIOSource
from plsc.data.workers import call_in_fork
from plsc.errors import DataError
from tests.data import container_kit
from tests.data.container_kit import MAGIC, contents, image_data, images, insightface, plain, record, write_records

LABELS = [3, 0, 0, 2, 4, 3, 1]
PICTURES = images(len(LABELS))


def opened(directory, classes: int | None = 5, **options) -> RecordIOSource:
    return container_kit.opened(RecordIOSource(directory, classes, (3, 8, 8), **options))


EXPECTED = list(zip(PICTURES, LABELS))


@pytest.mark.parametrize("idx", [True, False])
@pytest.mark.parametrize(
    "layout", ["insightface", "header first", "from 0", "from 1", "gaps", "shuffled", "long keys", "mixed", "odd"]
)
def test_every_layout_gives_the_same_images(tmp_path, layout, idx):
    data = insightface(PICTURES, LABELS)
    if layout == "header first":
        data = {0: data.pop(0), **data}
    if layout in ("from 0", "from 1"):
        data = plain(PICTURES, LABELS, int(layout[-1]))
    if layout == "gaps":
        data = {key * key: each for key, each in plain(PICTURES, LABELS, 2).items()}
    if layout == "shuffled":
        data = plain(PICTURES, LABELS, 1)
        data = {key: data[key] for key in ((3, 7, 1, 2, 6, 4, 5) if idx else data)}
    if layout == "long keys":  # which do not fit into 32 bits
        data = {10**12 * key: data[key] for key in ((3, 7, 1, 2, 6, 4, 5, 0) if idx else range(1, 8))}
    if layout == "odd":  # of records without an image: they mean nothing
        data = {key: image_data([-7.5, 0], b"", key) if key > len(LABELS) else each for key, each in data.items()}
    if layout == "mixed":  # the records of identities between those of images
        data = {key: data[key] for key in ((1, 8, 9, 2, 3, 10, 4, 0, 5, 11, 6, 7, 12) if idx else sorted(data))}
    source = opened(write_records(tmp_path, data, idx))
    assert contents(source) == EXPECTED
    assert source.labels.dtype == np.int32 and source.record()["labels"] == 5


def test_the_lines_of_an_index_in_any_order(tmp_path):
    write_records(tmp_path, insightface(PICTURES, LABELS))
    lines = (tmp_path / "train.idx").read_text().split("\n")[:-1]
    (tmp_path / "train.idx").write_text("\r\n".join(reversed(lines)))  # and without an end of the last line
    assert contents(opened(tmp_path)) == EXPECTED


@pytest.mark.parametrize("idx", [True, False])
def test_records_in_parts(tmp_path, idx):
    """The magic in the image, at its beginning, twice in a row, at its end; elsewhere it cuts nothing."""
    pictures = [MAGIC + b"abc", b"abcd" + MAGIC + MAGIC + b"e", b"abcdefgh" + MAGIC, b"ab" + MAGIC + b"cd", MAGIC * 3]
    data = plain(pictures, [0, 1, 2, 3, 4])
    kinds = [record(each)[7] >> 5 for each in data.values()]
    assert kinds == [1, 1, 1, 0, 1]
    for layout in (data, insightface(pictures, [0, 1, 2, 3, 4])):
        assert [picture for picture, _ in contents(opened(write_records(tmp_path, layout, idx)))] == pictures
    header = struct.pack("<IfQQ", 0, 1.0, int.from_bytes(MAGIC, "little"), 0) + b"picture"  # in the header itself
    assert contents(opened(write_records(tmp_path, {0: header}, idx))) == [(b"picture", 1)]


def test_a_file_of_many_blocks(tmp_path, monkeypatch):
    """Heads that lie on both sides of the end of a block, and records larger than one."""
    pictures = [bytes([number % 251]) * (number * 7 % 90 + 1) for number in range(300)]
    pictures[40] = MAGIC * 200
    pictures[41] = b"x" * 3000
    labels = [number % 5 for number in range(300)]
    write_records(tmp_path, insightface(pictures, labels))
    whole = opened(tmp_path)
    monkeypatch.setattr("plsc.data.containers.files.BLOCK_BYTES", 180)
    for idx in (True, False):
        if not idx:
            (tmp_path / "train.idx").unlink()
        source = opened(tmp_path)
        assert contents(source) == list(zip(pictures, labels))
        np.testing.assert_array_equal(source.positions, whole.positions)
        assert source.record() == whole.record()


@pytest.mark.parametrize("text, said", [
    ("6,8,8", "says 6 classes, classifier.num_classes=5: set classifier.num_classes: 6"),
    ("5,8,9\n", "says images of 9 x 8 pixels (width x height), model.image_shape=[3, 8, 8]: set model.image_shape: [3"),
    ("five", "'five' does not begin with 'classes,height,width'"),
    ("", "does not begin"), ("1,2", "does not begin"), ("9" * 30 + ",8,8", "does not begin"),
    ("5, 8 ,8, more of it\nand more", None), ("4,8,8", None),
])  # fmt: skip
def test_property_is_compared(tmp_path, text, said):
    write_records(tmp_path, plain(PICTURES, LABELS))
    (tmp_path / "property").write_text(text)
    if said is None:
        assert contents(opened(tmp_path)) == EXPECTED
        return
    assert said in refusal(tmp_path)


def refusal(directory, **options) -> str:
    return container_kit.refusal(lambda: opened(directory, **options))


@pytest.mark.parametrize("label, said", [
    (2.0**24, "the label 16777216 is not a whole number in 0..16777215; RecordIO keeps labels as float32"),
    (2.0**24 + 2, "the label 16777218"), (1.5, "the label 1.5 "), (-1.0, "the label -1 "), (float("nan"), "label nan"),
    (float("inf"), "label inf"), (3e38, "label 3.0"), ([2.0**24, 1.0], "the label 16777216"),
])  # fmt: skip
@pytest.mark.parametrize("idx", [True, False])
def test_labels_that_float32_cannot_hold(tmp_path, label, said, idx):
    data = plain(PICTURES, LABELS)
    data[3] = image_data(label, PICTURES[3])
    text = refusal(write_records(tmp_path, data, idx), classes=2**30)
    assert said in text and "train.rec" in text and ("key 3 at byte" in text) == idx


def test_the_largest_label(tmp_path):
    write_records(tmp_path, {0: image_data(2**24 - 1, PICTURES[0])})
    assert opened(tmp_path, 2**24).labels.tolist() == [2**24 - 1]
    assert "1 of 1 images have a label outside 0..4 (set by classifier.num_classes=5): " in refusal(tmp_path)
    assert "set classifier.num_classes: 16777216" in refusal(tmp_path)


@pytest.mark.parametrize("idx", [True, False])
@pytest.mark.parametrize("cut", [1, 2, 5, 9, 33, 70])
def test_a_file_that_was_not_copied_whole(tmp_path, idx, cut):
    write_records(tmp_path, plain(PICTURES, LABELS), idx)
    whole = (tmp_path / "train.rec").read_bytes()
    whole = whole.rstrip(b"\0")
    (tmp_path / "train.rec").write_bytes(whole[:-cut])
    text = refusal(tmp_path)
    assert "train.rec" in text and "goes beyond the end of the file" in text and "byte" in text


@pytest.mark.parametrize("cut", [4, 30])
def test_a_file_that_ends_in_the_head_of_a_record(tmp_path, cut):
    write_records(tmp_path, plain(PICTURES, LABELS), idx=False)
    with open(tmp_path / "train.rec", "ab") as file:
        file.write(record(bytes(60))[:cut])
    assert "not copied whole" in refusal(tmp_path)


def with_word(directory, offset: int, value: int) -> None:
    with open(directory / "train.rec", "r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<I", value))


@pytest.mark.parametrize("idx", [True, False])
@pytest.mark.parametrize("word, value, said", [
    (0, 5, "no record begins here"),
    (1, 2 << 29 | 40, "part 2 of a record stands where 0 or 1 should"),
    (1, 3 << 29 | 40, "part 3 of a record"),
    (1, 1 << 29 | 40, "no record begins here"),  # a first part, and no other follows it
    (1, 2**29 - 1, "goes beyond the end of the file"),
    (1, 20, None),  # shorter than it is
    (1, 4, None),
    (2, 2**32 - 1, "says that it has 4294967295 labels"),
    (2, 2**30, "says that it has 1073741824 labels"),
])  # fmt: skip
def test_records_that_are_damaged(tmp_path, idx, word, value, said):
    write_records(tmp_path, plain(PICTURES, LABELS), idx)
    source = opened(tmp_path)
    start = int(source.positions[2])
    with_word(tmp_path, start + 4 * word, value)
    text = refusal(tmp_path)
    assert (said or "") in text and "byte" in text and "train.rec" in text


@pytest.mark.parametrize("lines, said", [
    (["0\t0", "1\t8"], "no record begins here"),
    (["0\t0", "1\t3"], "line 2: key 1 has the offset 3: a record begins at a multiple of 4"),
    (["0\t0", "1\t99999999"], "line 2: key 1 has the offset 99999999: '"),
    (["0\t0", "1\t0"], "the keys 0 and 1 have the same offset 0"),
    (["7\t0", "7\t%d"], "has the key 7 twice"),
    (["0\t0", "x\t8"], r"line 2: 'x\t8' is not 'key<TAB>offset'"),
    (["0\t0", "1\t-8"], "line 2"), (["0\t0", "1\t1e3"], "line 2"), (["0\t0 8"], "line 1"), (["0"], "line 1"),
    (["0\t0", "", "1\t8"], "line 2"), (["0\t" + "9" * 25], "line 1"), ([""], "line 1: ''"),
    (["0\t0"] * 100_000, "has 100000 lines, which is not the list of"),
])  # fmt: skip
def test_an_index_that_is_wrong(tmp_path, lines, said):
    write_records(tmp_path, plain(PICTURES, LABELS))
    second = int(opened(tmp_path).positions[1])
    text = "".join(f"{line}\n" for line in lines)
    (tmp_path / "train.idx").write_text(text.replace("%d", str(second)))
    assert said in refusal(tmp_path)


def test_an_index_of_one_endless_line(tmp_path):
    write_records(tmp_path, plain(PICTURES, LABELS))
    (tmp_path / "train.idx").write_bytes(b"0\t0\n" + b"7" * (9 << 20))
    assert "the line is longer than 64 bytes" in refusal(tmp_path)


def test_an_offset_into_another_record(tmp_path):
    """A whole record, with its magic, inside of an image: to begin there would read an image that is none."""
    inner = record(image_data(1.0, b"inner"))
    picture = b"x" + bytes(7) + inner[4:]  # 24 bytes of header and 8 before the length: the place of the magic is empty
    write_records(tmp_path, {0: image_data(0.0, b"abcd"), 1: image_data(0.0, picture), 2: image_data(2.0, b"z")})
    offsets = [int(line.split()[1]) for line in (tmp_path / "train.idx").read_text().split("\n")[:-1]]
    inside = offsets[1] + 8 + 24 + 4
    with_word(tmp_path, inside, int.from_bytes(MAGIC, "little"))  # a writer would not; who damages a file does
    assert len(contents(opened(tmp_path))) == 3
    (tmp_path / "train.idx").write_text(f"0\t{offsets[0]}\n1\t{offsets[1]}\n3\t{inside}\n2\t{offsets[2]}\n")
    text = refusal(tmp_path)
    assert f"key 1 at byte {offsets[1]}: goes on to byte " in text
    assert f"the next record begins at byte {inside}" in text


@pytest.mark.parametrize("idx", [True, False])
def test_records_without_a_image(tmp_path, idx):
    data = plain(PICTURES, LABELS)
    data[4] = image_data(0.0, b"")
    assert "the record has no image, and there is no header" in refusal(write_records(tmp_path, data, idx))
    data = insightface(PICTURES, LABELS)
    del data[3]
    said = "keys 1..7, but 6 records have an image" if idx else "has no image"
    assert said in refusal(write_records(tmp_path, data, idx))


@pytest.mark.parametrize("content", [b"", b"\0" * 12, b"not a record at all"])
def test_what_is_no_recordio(tmp_path, content):
    (tmp_path / "train.rec").write_bytes(content)
    if not content:
        assert len(RecordIOSource(tmp_path, 5, (3, 8, 8))) == 0
        return
    assert "byte 0: no record begins here" in refusal(tmp_path)


def test_no_file(tmp_path):
    assert "train.rec': cannot be opened: No such file" in refusal(tmp_path)
    (tmp_path / "a\nb").mkdir()
    assert "b/x.rec" in refusal(tmp_path / "a\nb", file="x.rec")


def test_a_file_that_changes_while_it_is_read(tmp_path):
    write_records(tmp_path, plain(PICTURES, LABELS))
    source = opened(tmp_path)
    with_word(tmp_path, int(source.positions[2]), 5)
    with pytest.raises(DataError, match="key 2 at byte .*no record begins here"):
        source.read(2)
    with open(tmp_path / "train.rec", "r+b") as file:
        file.truncate(int(source.positions[3]) + 20)
    with pytest.raises(DataError, match="has become shorter since the run began"):
        source.read(3)


def test_the_record_tells_other_labels_other_images_and_what_was_added(tmp_path):
    def of(pictures, labels, count=None):
        source = opened(write_records(tmp_path, insightface(pictures, labels)))
        return {"kind": "recordio", "num_classes": 5, **source.record(count)}

    old = of(PICTURES[:6], LABELS[:6])
    assert difference(old, of(PICTURES[:6], LABELS[:6])) is None
    assert difference(old, of(PICTURES[:6], [0, *LABELS[1:6]])).relabelled
    longer = difference(old, of(PICTURES, LABELS), lambda count: of(PICTURES, LABELS, count))
    assert not longer.relabelled and "whose beginning is the same" in longer.text
    other = difference(old, of(images(6, side=9), LABELS[:6]))
    assert not other.relabelled and "another list" in other.text


def peak_and_kept(work) -> tuple[int, int, int]:
    """(bytes that the process has before, at most during, and after ``work``), as the kernel counts them."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().split("\n")
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    before = status("VmRSS:")  # of a fork: its peak begins here too
    kept = work()
    return before, status("VmHWM:"), status("VmRSS:") + 0 * len(kept)


def test_a_million_images_take_sixteen_bytes_each(tmp_path):
    """And twice as much while they are indexed: 50 million stay below 1.5 GB, with 4 bytes each for their order."""
    count = 1_000_000
    one = np.frombuffer(record(image_data(0.0, b"abcd")), "<u4")
    whole = np.tile(one, (count, 1))
    whole[:, 3] = (np.arange(count) % 93431).astype("<f4").view("<u4")
    whole.tofile(tmp_path / "train.rec")
    (tmp_path / "train.idx").write_text("".join(f"{key}\t{key * one.nbytes}\n" for key in range(count)))
    source = opened(tmp_path, 93431)
    assert len(source) == count and source.read(777_777) == (b"abcd", 777_777 % 93431)
    arrays = [value for value in vars(source).values() if isinstance(value, np.ndarray)]
    whole = [array if array.base is None else array.base for array in arrays]  # what a slice keeps alive
    assert len(whole) == 3 and sum(array.nbytes for array in whole) == 16 * count
    before, peak, kept = call_in_fork(lambda: peak_and_kept(lambda: opened(tmp_path, 93431)))
    assert kept - before < 20e6 + 16 * count, (kept - before) / count
    # keys 8, labels as float32 4, and truth values; the blocks of 1 MB, as Python's numbers, do not grow with the file
    assert peak - before < 80e6 + 30 * count, (peak - before) / count


def test_classes_are_counted_or_those_of_property(tmp_path):
    write_records(tmp_path, plain(PICTURES, LABELS))
    assert opened(tmp_path, None).num_classes == 5
    (tmp_path / "property").write_text("7,8,8")
    assert opened(tmp_path, None).num_classes == 7
    (tmp_path / "property").write_text("3,8,8")
    with pytest.raises(DataError, match="3 of 7 images have a label outside 0..2"):
        opened(tmp_path, None)


def test_its_directory_is_recognised(tmp_path):
    write_records(tmp_path, plain(PICTURES, LABELS))
    assert Auto(tmp_path, "label.txt").choose().line == f"data.dataset: auto takes recordio: {tmp_path} has train.rec"


def test_walking_is_in_the_order_of_the_file(tmp_path):
    write_records(tmp_path, insightface(PICTURES, LABELS))
    offsets = sorted(int(line.split()[1]) for line in (tmp_path / "train.idx").read_text().split("\n")[:-1])
    with Scanner(str(tmp_path / "train.rec")) as scanner:
        assert recordio.walk(scanner).tolist() == offsets


def test_property_of_another_size_is_left_to_the_images_where_they_are_resized(tmp_path):
    write_records(tmp_path, insightface(PICTURES, LABELS))
    (tmp_path / "property").write_text("5,112,96")
    with pytest.raises(DataError, match=r"images of 96 x 112 .*set model.image_shape: \[3, 112, 96\], or data.resize"):
        opened(tmp_path)
    assert contents(opened(tmp_path, resize="crop")) == EXPECTED
