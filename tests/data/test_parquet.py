"""Parquet files that pyarrow writes, in the two forms of dataset hubs; other schemas and damage are one line."""

from __future__ import annotations

import os

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from plsc.data import Augmentations, GlobalBatchSampler, Loader, Preparation, SourceDataset
from plsc.data.record import difference
from plsc.data.sources.auto import Auto
from plsc.data.sources.parquet import ParquetSource
from plsc.errors import DataError
from tests.data import container_kit
from tests.data.container_kit import contents, images, write_parquet

LABELS = [3, 0, 0, 2, 4, 3, 1, 1, 0, 2, 4]
PICTURES = images(len(LABELS))
STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def opened(directory, classes: int | None = 5, **options) -> ParquetSource:
    return container_kit.opened(ParquetSource(directory, classes, **options))


def refusal(directory, **options) -> str:
    return container_kit.refusal(lambda: opened(directory, **options))


def write(directory, pictures=PICTURES, labels=LABELS, **columns):
    """Two files of three row groups each, but for the last."""
    write_parquet(directory / "train-0.parquet", pictures[:7], labels[:7], **columns)
    write_parquet(directory / "train-1.parquet", pictures[7:], labels[7:], **columns)
    return directory


@pytest.mark.parametrize("label", [pyarrow.int64(), pyarrow.int8(), pyarrow.uint16(), pyarrow.uint64()])
@pytest.mark.parametrize("image", [pyarrow.binary(), pyarrow.large_binary(), STRUCT])
def test_the_images_of_the_list(tmp_path, image, label):
    pictures = [{"bytes": one, "path": None} for one in PICTURES] if image == STRUCT else PICTURES
    source = opened(write(tmp_path, pictures, image=image, label=label), cached_groups=2)
    assert contents(source) == list(zip(PICTURES, LABELS))
    for index in np.random.default_rng(0).integers(0, len(LABELS), 40).tolist():
        assert source.read(index) == (PICTURES[index], LABELS[index]) and len(source._cache) <= 2
    assert source.name(8) == f"'{tmp_path}/train-1.parquet': row group 0, row 1"


def test_found_by_auto_and_counted(tmp_path):
    write(tmp_path)
    assert Auto(tmp_path, "label.txt").choose().line.endswith(" has train-0.parquet")
    assert opened(tmp_path, None).num_classes == 5
    assert len(opened(tmp_path, files="train-{0..0}.parquet")) == 7


def test_columns_of_other_names(tmp_path):
    table = pyarrow.table({"who": LABELS, "face": PICTURES, "label": ["x"] * len(LABELS)})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert contents(opened(tmp_path, image_column="face", label_column="who")) == list(zip(PICTURES, LABELS))
    text = refusal(tmp_path)
    assert "there is no image column 'image'; columns: who, face, label; set data.options: image_column" in text
    assert "the label column 'label' is of type string, it must hold integers" in refusal(tmp_path, image_column="face")
    assert "the label column 'id' is not there" in refusal(tmp_path, image_column="face", label_column="id")
    assert "the image column 'who' is of type int64, it must hold bytes" in refusal(tmp_path, image_column="who")


@pytest.mark.parametrize("pictures, labels, columns, said", [
    ([None, b"x"], [0, 1], {}, "row group 0, row 0: has no bytes"),
    ([{"bytes": None, "path": "a.jpg"}], [0], {"image": STRUCT}, "row 0: has no bytes (the image may be a path"),
    ([None], [0], {"image": STRUCT}, "row 0: has no bytes"),
    ([b"x", b"y"], [0, None], {}, "row group 0: 1 rows have no label"),
    ([b"x"], [5], {}, "1 of 1 images have a label outside 0..4"), ([b"x"], [-2**60], {}, "have a label outside 0..4"),
    ([b"x"], [2**31], {}, "has the label 2147483648; none is so large"),
    ([b"x"], [2**64 - 1], {"label": pyarrow.uint64()}, "has the label 18446744073709551615"),
    ([{"path": "x"}], [0], {"image": pyarrow.struct([("path", pyarrow.string())])}, "it must hold bytes, or a struct"),
])  # fmt: skip
def test_rows_that_cannot_be_used(tmp_path, pictures, labels, columns, said):
    write_parquet(tmp_path / "x.parquet", pictures, labels, **columns)
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + bytes(100) + b"PAR1",
                                     b"x" * 8 + b"\xff\xff\xff\x7fPAR1"])  # fmt: skip
def test_what_is_no_parquet(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    assert "cannot be read as Parquet: " in refusal(tmp_path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "x.parquet")
    assert "is a pipe, not a regular file" in refusal(tmp_path)
    text = refusal(tmp_path, files="y*.parquet")
    assert "has no file 'y*.parquet'; check data.dataset_dir and data.options: files" in text


def test_a_file_that_was_not_copied_whole_or_is_damaged(tmp_path):
    write_parquet(tmp_path / "x.parquet", PICTURES, LABELS)
    whole = (tmp_path / "x.parquet").read_bytes()
    for cut in (1, 8, 300):
        (tmp_path / "x.parquet").write_bytes(whole[:-cut])
        assert "cannot be read as Parquet" in refusal(tmp_path)
    said = 0
    for place in range(4, len(whole), 41):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        (tmp_path / "x.parquet").write_bytes(bytes(changed))
        try:
            contents(opened(tmp_path))  # the bytes of an image have no checksum
        except DataError as error:
            said += 1
            assert "\n" not in str(error)
    assert said > 5


def test_row_groups_that_would_fill_the_memory(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr("plsc.data.containers.parquet.MOST_GROUP", 100)
    assert "a row group may have 100 bytes, as it is read as a whole: write smaller ones" in refusal(tmp_path)


@pytest.mark.parametrize("image", [pyarrow.binary(), STRUCT])
def test_an_image_that_many_rows_name_is_in_memory_once(tmp_path, image):
    """100 KB in the file, 600 MB if each row had its own."""
    one = b"x" * 2_000_000
    rows = [{"bytes": one, "path": None} if image == STRUCT else one] * 300
    table = pyarrow.table({"image": pyarrow.array(rows, image), "label": [0] * 300})
    parquet.write_table(table, tmp_path / "x.parquet", dictionary_pagesize_limit=1 << 30)
    source = opened(tmp_path)
    assert source.read(299) == (one, 0) and source._cache[0][1].nbytes < 5_000_000


def test_a_row_count_that_cannot_be(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr("plsc.data.containers.parquet.MOST_ROWS", 0)
    assert "says that it has 7 rows, in " in refusal(tmp_path)


def test_more_rows_than_bytes(tmp_path):
    """The same image and label, encoded as runs: each row takes memory here."""
    rows = np.zeros(100_000, np.int8)
    pictures = pyarrow.DictionaryArray.from_arrays(pyarrow.array(rows), pyarrow.array([images(1)[0]]))
    labels = pyarrow.DictionaryArray.from_arrays(pyarrow.array(rows), pyarrow.array([0]))
    table = pyarrow.table({"image": pictures, "label": labels})
    parquet.write_table(table, tmp_path / "x.parquet", store_schema=False)
    assert "says that it has 100000 rows, in " in refusal(tmp_path)


def test_workers_read_the_batches_of_this_process(tmp_path):
    """Forks of a process that has read with pyarrow: they open the files anew, and use no threads of its."""
    source = ParquetSource(write(tmp_path), 5)
    data = SourceDataset(source, 5, Preparation((3, 8, 8), Augmentations(["flip"], 3)), "parquet")
    runs = []
    for workers in (0, 2):
        with Loader(data, GlobalBatchSampler(11, 4, 0, 1, seed=5), workers, 0, 8) as loader:
            runs.append([(images.copy(), labels.copy()) for _, images, labels in loader])
    for (images_here, labels_here), (images_there, labels_there) in zip(*runs):
        np.testing.assert_array_equal(images_here, images_there)
        np.testing.assert_array_equal(labels_here, labels_there)
    assert len(runs[1]) == 8


def test_the_record_tells_other_labels_other_images_and_what_was_added(tmp_path):
    def of(name, pictures, labels, count=None):
        return {"kind": "parquet", "num_classes": 5, **opened(write(tmp_path / name, pictures, labels)).record(count)}

    old = of("a", PICTURES, LABELS)
    assert difference(old, of("b", PICTURES, LABELS)) is None
    assert difference(old, of("c", PICTURES, [4, *LABELS[1:]])).relabelled
    other = difference(old, of("d", images(len(LABELS), side=12), LABELS))
    assert not other.relabelled and "another list" in other.text
    write_parquet(tmp_path / "a" / "train-2.parquet", PICTURES[:2], LABELS[:2])
    longer = difference(old, {"kind": "parquet", "num_classes": 5, **opened(tmp_path / "a").record()},
                        lambda count: {"kind": "parquet", **opened(tmp_path / "a").record(count)})  # fmt: skip
    assert not longer.relabelled and "whose beginning is the same" in longer.text


def test_four_bytes_an_image(tmp_path):
    write_parquet(tmp_path / "x.parquet", [b"%d" % n for n in range(50_000)], [n % 5 for n in range(50_000)], rows=1000)
    source = opened(tmp_path)
    assert len(source) == 50_000 and source.read(49_999) == (b"49999", 4)
    kept = sum(value.nbytes for value in vars(source).values() if isinstance(value, np.ndarray))
    assert kept < 4 * 50_000 + 2000
