"""The files of PLSC 0.x (base64) and 2.2 (KV): the images of the list; damage and pickles that would run something."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest

from plsc.data.record import difference
from plsc.data.sources.auto import Auto
from plsc.data.sources.base64 import Base64Source
from plsc.data.sources.kv import KVSource
from plsc.errors import DataError
from tests.data.container_kit import images, key_value, write_base64, write_kv

LABELS = [3, 0, 0, 2, 4, 3, 1]
PICTURES = images(len(LABELS))


def opened(source):
    source.check(check_files=True)
    source.open_files()
    return source


def contents(source) -> list:
    return [source.read(index) for index in range(len(source))]


def refusal(make) -> str:
    with pytest.raises(DataError) as caught:
        contents(opened(make()))
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


@pytest.mark.parametrize("files", [1, 2, 7])
def test_base64_gives_the_images_of_the_list(tmp_path, files):
    source = opened(Base64Source(write_base64(tmp_path, PICTURES, LABELS, files), 5))
    assert contents(source) == list(zip(PICTURES, LABELS))
    assert opened(Base64Source(tmp_path, None)).num_classes == 5
    line = Auto(tmp_path, "label.txt").choose().line
    assert line == f"data.dataset: auto takes base64: {tmp_path} has file_list.txt and base64_rank_0"


def test_base64_in_many_blocks(tmp_path, monkeypatch):
    """Lines that end anywhere in a block, blank ones, and one that is longer than some blocks."""
    pictures = [bytes([n]) * (n * 13 % 70 + 1) for n in range(200)]
    pictures[50] = b"x" * 5000
    labels = [n % 5 for n in range(200)]
    write_base64(tmp_path, pictures, labels, 1)
    path = tmp_path / "base64_rank_0"
    path.write_text("\n" + path.read_text().replace("\n", "\r\n\n").rstrip())
    whole = opened(Base64Source(tmp_path, 5))
    monkeypatch.setattr("plsc.data.containers.base64_lines.BLOCK_BYTES", 25)
    source = opened(Base64Source(tmp_path, 5))
    assert contents(source) == contents(whole) == list(zip(pictures, labels))
    assert (source.positions.dtype, source.sizes.dtype, source.labels.dtype) == (np.int64, np.uint32, np.int32)
    path.write_text(path.read_text() + "\n" * 3 + "eA==\tx\n")
    lines = path.read_text().count("\n")
    assert f"base64_rank_0': line {lines}: is not 'base64<TAB>label'" in refusal(lambda: Base64Source(tmp_path, 5))


@pytest.mark.parametrize("line, said", [
    (b"eA==", "line 8: is not 'base64<TAB>label'"), (b"eA==\t1.5", "line 8"), (b"eA==\t99999999999", "line 8"),
    (b"eA==\t5", "1 of 8 images have a label outside 0..4"), (b"eA==\t-1", "1 of 8 images have a label outside"),
    (b"eA=\t1", "is not base64"), (b"e\xff==\t1", "is not base64"), (b"e A==\t1", "is not base64"),
])  # fmt: skip
def test_lines_that_are_wrong(tmp_path, line, said):
    write_base64(tmp_path, PICTURES, LABELS, 1)
    with open(tmp_path / "base64_rank_0", "ab") as file:
        file.write(line + b"\n")
    assert said in refusal(lambda: Base64Source(tmp_path, 5))


def test_lists_and_files_that_are_wrong(tmp_path, monkeypatch):
    write_base64(tmp_path, PICTURES, LABELS, 1)
    for text, said in (("", "is empty; it must name the files"), ("gone\n", "gone': cannot be opened: No such file"),
                       ("a\0b", "is no list of files")):  # fmt: skip
        (tmp_path / "file_list.txt").write_text(text)
        assert said in refusal(lambda: Base64Source(tmp_path, 5))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file_list.txt").write_text("pipe\n")
    assert "is a pipe" in refusal(lambda: Base64Source(tmp_path, 5))
    (tmp_path / "file_list.txt").write_bytes(b"a\n" * 100_001)
    assert "file_list.txt': has more than 100,000 lines" in refusal(lambda: Base64Source(tmp_path, 5))
    monkeypatch.setattr("plsc.data.containers.base64_lines.MOST_LINE", 2**20)
    (tmp_path / "endless").write_bytes(b"A" * (40 << 20))
    (tmp_path / "file_list.txt").write_text("endless\n")
    assert "byte 0: a line of more than 1,048,576 bytes" in refusal(lambda: Base64Source(tmp_path, 5))


def test_records_tell_other_labels(tmp_path):
    def of(name, labels, write, make):
        return make(write(tmp_path / name, PICTURES, labels)).record()

    for number, (write, make) in enumerate((
        (write_base64, lambda path: opened(Base64Source(path, 5))),
        (write_kv, lambda path: opened(KVSource(path, "label.txt", 5))),
    )):  # fmt: skip
        old = {"kind": "x", **of(f"a{number}", LABELS, write, make)}
        assert difference(old, {"kind": "x", **of(f"b{number}", LABELS, write, make)}) is None
        assert difference(old, {"kind": "x", **of(f"c{number}", [4, *LABELS[1:]], write, make)}).relabelled


def test_kv_gives_the_images_of_the_list(tmp_path):
    """In every protocol of pickle, which the kit takes by turns."""
    source = opened(KVSource(write_kv(tmp_path, PICTURES, LABELS), "label.txt", 5))
    assert contents(source) == list(zip(PICTURES, LABELS)) and source.record()["kind"] == "kv"
    assert Auto(tmp_path, "label.txt").choose().name == "list"


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/s2_was_run",)


@pytest.mark.parametrize("content, said", [
    (b"", "0 bytes are too few for key and value"), (b"\x01\0\0", "3 bytes are too few"),
    (struct.pack("<I", 2**32 - 1), "a key or value of 4,294,967,295 bytes in a file of 4"),
    (b"\x01\0\0\0k", "5 bytes are too few"), (key_value(b"k", b"")[:-1], "are too few"),
    (b"\x01\0\0\0k\xff\xff\xff\x7f", "a key or value of 2,147,483,647 bytes"),
    (key_value(b"k", b""), "its pickle is damaged"), (key_value(b"k", b"\x80\x04junk"), "its pickle is"),
    (key_value(b"k", pickle.dumps("text")), "its pickle holds str; it must be the bytes"),
    (key_value(b"k", pickle.dumps([b"x"])), "its pickle holds list"),
    (key_value(b"k", pickle.dumps(Runs())), "its pickle is refused"),
    (key_value(b"k", pickle.dumps(np.zeros(3))), "its pickle "),
])  # fmt: skip
def test_kv_files_that_cannot_be_used(tmp_path, content, said):
    write_kv(tmp_path, PICTURES, LABELS)
    (tmp_path / "images" / "00000003.bin").write_bytes(content)
    text = refusal(lambda: KVSource(tmp_path, "label.txt", 5))
    assert said in text and "label.txt:4" in text and not os.path.exists("/tmp/s2_was_run")
