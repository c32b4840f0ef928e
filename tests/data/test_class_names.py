"""Names of classes beside lists and containers: every source reads the same table, in one way."""

from __future__ import annotations

import os

import pytest

from plsc.config import Config
from plsc.data.class_table import write_class_table
from plsc.data.opening import open_to_read
from plsc.errors import DataError
from tests.data.container_kit import images, write_all

LABELS = [0, 0, 1, 2, 2, 2, 3, 4, 4]
COUNTS, NAMES = [2, 1, 3, 1, 2], ["ann", "bo b", "ü", "d", "e"]
TABLES = {"list": "files/label", "kv": "kv/label", "insightface": "insightface/train",
          "without_idx": "without_idx/train", "im2rec": "im2rec/train", "shards": "shards/tar", "lmdb": "lmdb/data",
          "parquet": "parquet/parquet", "base64": "base64/file_list"}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("places")
    return root, write_all(root, images(len(LABELS)), LABELS)


@pytest.mark.parametrize("name", TABLES)
def test_every_source_reads_the_table(places, name):
    root, settings = places
    table = root / f"{TABLES[name]}.classes.tsv"

    def opened(**more):
        config, log = Config(), []
        config.update({"model": {"image_shape": [3, 8, 8]}, "data": settings[name], **more})
        return open_to_read(config, log.append), [line for line in log if str(table) in line]

    source, lines = opened()
    assert source.class_names is None and not lines and os.path.basename(source.class_table) == table.name
    try:
        write_class_table(str(table), NAMES, COUNTS)
        source, lines = opened()
        assert list(source.class_names) == NAMES and source.num_classes == 5
        assert [line.endswith(f": the names of the classes are those of {table}") for line in lines] == [True]
        write_class_table(str(table), NAMES[:4], ["", 9, 3, 1])  # fewer names; what is not told is not compared
        source, lines = opened()
        assert list(source.class_names) == NAMES[:4] and len(lines) == 2
        assert "for 1 of 3 classes, such as 9 for class 1, which has 1: if it belongs to other data" in lines[1]
        write_class_table(str(table), [*NAMES, "f"], [*COUNTS, 0])
        assert list(opened(classifier={"num_classes": 6})[0].class_names) == [*NAMES, "f"]
        with pytest.raises(DataError, match="has 6 names for 5 classes; set classifier.num_classes: 6, ") as caught:
            opened()
        table.write_bytes(b"0\tann\t2\n2\tb\t1\n")
        with pytest.raises(DataError, match=r"classes.tsv:2: .* is not 1<TAB>name<TAB>images") as damaged:
            opened()
        table.unlink()
        table.mkdir()
        with pytest.raises(DataError, match="the names of the classes cannot be read: ") as unread:
            opened()
        assert "\n" not in f"{caught.value}{damaged.value}{unread.value}"
        table.rmdir()
    finally:
        if table.is_file():
            table.unlink()
