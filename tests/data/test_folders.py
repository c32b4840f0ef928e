"""A folder of identities as a data source, and which source `auto` takes: names as hostile as a disk can hold."""

from __future__ import annotations

import io
import os
import random

import numpy as np
import pytest
from PIL import Image

from plsc.data import Source, identity_walk, register_source
from plsc.data.directory import list_directory
from plsc.data.record import Difference, difference, index_record
from plsc.data.sources.auto import Auto, Choice
from plsc.data.sources.folder import FolderSource
from plsc.data.sources.label_list import LabelListSource
from plsc.errors import DataError
from plsc.registry import SOURCES
from tests.registries import forget_afterwards


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    SOURCES.names()
    forget_afterwards(monkeypatch, SOURCES)


def put(root, *paths: str | bytes) -> None:
    """Files that hold their own names."""
    for path in paths:
        whole = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "wb") as file:
            file.write(os.fsencode(path))


def contents(source: Source) -> list[tuple[bytes, int]]:
    return [source.read(index) for index in range(len(source))]


def test_classes_are_the_names_in_the_order_of_their_bytes(tmp_path):
    names = [b"b", b"B", b"a b", b"\xc3\xa9", b"\xff\xfe", b"10", b"9", b"new\nline", b"a\tb", b"-", b"x" * 255,
             b" . "]  # fmt: skip
    wanted = [(os.path.join(name, one), name) for name in names for one in (b"2.JPG", b"10.jpg", b"\xfe.png")]
    random.Random(1).shuffle(wanted)
    put(tmp_path, *(path for path, _ in wanted))
    source = FolderSource(tmp_path)
    order = sorted(names)
    assert source.num_classes == len(names) and len(source.notes) == 1  # B and b look alike
    assert source.class_names == [name.decode("utf-8", "backslashreplace") for name in order]
    assert contents(source) == [
        (os.path.join(name, one), label)
        for label, name in enumerate(order)
        for one in sorted((b"2.JPG", b"10.jpg", b"\xfe.png"))
    ]
    assert all("\n" not in source.name(index) for index in range(len(source)))


def test_images_deeper_down_belong_to_the_folder_in_the_root(tmp_path):
    put(tmp_path, "a/video2/1.jpg", "a/video1/clip/7.png", "a/1.bmp", "b/x/1.jpg", "a/video1.jpg")
    assert contents(FolderSource(tmp_path)) == [  # in the order of the bytes of whole paths
        (b"a/1.bmp", 0), (b"a/video1.jpg", 0), (b"a/video1/clip/7.png", 0), (b"a/video2/1.jpg", 0), (b"b/x/1.jpg", 1),
    ]  # fmt: skip


def test_what_is_passed_over_is_counted_once_by_kind(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(outside, "x/1.jpg", "2.jpg")
    put(root, "a/1.jpg", "b/1.jpg", ".hidden/1.jpg", "a/.2.jpg", "lfw.bin", "3.jpg", "a/notes.txt", "none/notes.txt")
    (root / "empty").mkdir()
    os.mkfifo(root / "a" / "pipe.jpg")
    os.symlink(outside / "x", root / "out")  # a folder elsewhere
    os.symlink(outside / "2.jpg", root / "a" / "out.jpg")
    os.symlink(root / "b" / "1.jpg", root / "a" / "inside.jpg")  # followed
    os.symlink(root / "a", root / "a" / "self")  # no end
    os.symlink("../..", root / "b" / "up")
    os.symlink("nowhere", root / "b" / "nowhere.jpg")
    os.symlink("loop.jpg", root / "b" / "loop.jpg")
    source = FolderSource(root)
    assert contents(source) == [(b"a/1.jpg", 0), (b"b/1.jpg", 0), (b"b/1.jpg", 1)]
    assert [source.name(index).rpartition("/")[2] for index in range(3)] == ["1.jpg'", "inside.jpg'", "1.jpg'"]
    start = f"{root}: passed over "
    assert sorted(note.removeprefix(start).partition(", such as ")[0] for note in source.notes) == [
        "2 file(s) beside the folders of the identities", "2 folder(s) without images, which are no classes",
        "2 hidden name(s), which begin with a dot",
        "4 link(s) that lead out of the folder or in a circle",
        # notes.txt twice, the pipe, two links that lead to no file
        "5 file(s) that are no images by their names or no files",
    ]  # fmt: skip


def notes(root) -> list[str]:
    """What is said about a folder, without its path."""
    return [note.replace(f"{root}: ", "", 1).replace(str(root), "") for note in FolderSource(root).notes]


def test_names_that_look_alike_are_told(tmp_path):
    """In upper and lower case, and in the form of their accents, which another system has changed."""
    put(tmp_path, "ann lee/1.jpg", "Zo\u00eb/1.jpg", "bob/1.jpg", "Bobby/1.jpg", b"\xff/1.jpg", b"\xfe/1.jpg")
    assert notes(tmp_path) == []
    put(tmp_path, "Ann Lee/1.jpg")
    assert notes(tmp_path) == [
        "1 pair(s) of folders have names that look alike, such as 'Ann Lee' and 'ann lee': two classes each"
    ]
    put(tmp_path, "ANN LEE/1.jpg", "Zoe\u0308/1.jpg")
    assert [note.partition(",")[0] for note in notes(tmp_path)] == ["3 pair(s) of folders have names that look alike"]
    assert FolderSource(tmp_path).num_classes == 9, "nothing is put together"


def test_an_identity_that_is_a_link_to_another_is_told(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg", ".kept/c/1.jpg")
    os.symlink(".kept/c", tmp_path / "c")  # in one place only
    assert [note.partition(",")[0] for note in notes(tmp_path)] == ["passed over 1 hidden name(s)"]
    os.symlink("a", tmp_path / "d")
    assert notes(tmp_path)[1:] == [
        "1 folder(s) are links to the folder of another identity, such as '/d': their images have two labels"
    ]
    assert contents(FolderSource(tmp_path)) == [
        (b"a/1.jpg", 0), (b"b/1.jpg", 1), (b".kept/c/1.jpg", 2), (b"a/1.jpg", 3),
    ]  # fmt: skip


def test_folders_of_systems_are_no_classes(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg", "a/@eaDir/1.jpg/thumbnail.jpg", "__MACOSX/a/1.jpg", "lost+found/1.jpg")
    (tmp_path / "a" / "@eaDir" / "2.jpg").touch()
    assert contents(FolderSource(tmp_path)) == [(b"a/1.jpg", 0), (b"b/1.jpg", 1)]
    assert [note.partition(",")[0] for note in notes(tmp_path)] == ["passed over 3 folder(s) that a system has made"]


@pytest.mark.parametrize(
    ("paths", "num_classes", "text"),
    [
        (["1.jpg"], None, "no folder with images; a folder for each of at least two identities is needed, as in "),
        (["images/a/1.jpg", "images/b/1.jpg"], None, "only one folder with images, 'images'; a folder for each of"),
        (["a/1.txt", "b/1.txt"], None, "no folder with images; "),
        (["a/1.jpg", "b/1.jpg", "c/1.jpg"], 2, "has 3 folders with images, more than classifier.num_classes=2; set it"),
    ],
)
def test_what_is_no_folder_of_identities(tmp_path, paths, num_classes, text):
    put(tmp_path, *paths)
    with pytest.raises(DataError) as caught:
        FolderSource(tmp_path, num_classes)
    assert str(caught.value).startswith(f"data.dataset_dir={str(tmp_path)!r}: {text}") and "\n" not in str(caught.value)


def test_a_folder_that_is_gone_or_nested_without_an_end(tmp_path):
    with pytest.raises(DataError, match=r"^data.dataset_dir: '.*gone' cannot be read: No such file or directory$"):
        FolderSource(tmp_path / "gone")
    put(tmp_path, "a/1.jpg", "b/" + "d/" * identity_walk.MOST_DEPTH + "1.jpg")
    with pytest.raises(DataError, match=f"nested more than {identity_walk.MOST_DEPTH} deep"):
        FolderSource(tmp_path)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    listed = os.scandir

    def scandir(path):
        if isinstance(path, bytes) and path.endswith(b"/b"):
            raise PermissionError(13, "Permission denied", path)  # which root, who may run this, would not get
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"^data.dataset_dir: '.*/b' cannot be read: Permission denied$"):
        FolderSource(tmp_path)


def test_more_classes_than_folders(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    source = FolderSource(tmp_path, 9)
    assert (source.num_classes, source.record()["num_classes"], source.record()["labels"]) == (2, 9, 2)


def test_the_record_is_that_of_the_list_of_the_same_images(tmp_path):
    put(tmp_path, *(f"{name}/{number}.jpg" for name in "abc" for number in range(40)))
    source = FolderSource(tmp_path)
    lines = [f"{os.fsdecode(path)}\t{label}\n" for path, label in contents(source)]
    (tmp_path / "label.txt").write_text("".join(lines))
    listed = LabelListSource(tmp_path, "label.txt", None)
    assert listed.num_classes == 3
    assert (source._index.starts.dtype, source._index.labels.dtype) == (np.uint32, np.int32)  # 8 bytes an image
    own, other = source.record(), listed.record()
    assert {**own, "kind": "list"} == other
    assert source.record(50) == {"kind": "folder", **index_record(source._index, 50)} and source.record(50) != own
    found = difference(own, other)
    assert found == Difference("a list of 120 images instead of a folder of 120 images, of one content")
    found = difference({**other, "sample": [[path, label + 1] for path, label in other["sample"]], "lines": ""}, own)
    assert found is not None and found.relabelled  # also where the labels were a list's
    put(tmp_path, "aa/1.jpg")
    found = difference(own, FolderSource(tmp_path).record(), FolderSource(tmp_path).record)
    assert found is not None and found.relabelled


def test_auto_takes_a_list_then_a_container_then_a_folder(tmp_path):
    @register_source("box")
    class Box(LabelListSource):
        """Two kinds of container."""
        precedence, looks_for = Source.precedence, "*.box (box)"

        @classmethod
        def recognise(cls, directory):
            return directory.first(".box")

    @register_source("crate")
    class Crate(Box):
        @classmethod
        def recognise(cls, directory):
            return directory.first(".crate")

    def choice(label_file="label.txt"):
        return Auto(tmp_path, label_file).choose()

    def refusal() -> str:
        with pytest.raises(DataError) as caught:
            choice()
        return str(caught.value)

    text = refusal()
    assert "no training data found among 0 file(s) and 0 folder(s); looked for: " in text
    for one in ("folders of images, one for each identity (folder), ", "the label list data.label_file (list), ",
                " *.box (box), *.box (box);"):  # fmt: skip
        assert one in text
    assert "data.label_file='label.txt'" in text and "data.dataset: synthetic" in text and "\n" not in text
    put(tmp_path, "ann/1.jpg", "bob/1.jpg", ".hidden.box")
    line = f"data.dataset: auto takes folder: {tmp_path} has 2 folder(s), such as 'ann', and no list or container"
    assert choice() == Choice("folder", line)
    put(tmp_path, "y.box", "x.box")
    assert choice().name == "box"
    assert choice().line.startswith(f"data.dataset: auto takes box: {tmp_path} has x.box; also there, and not read: fo")
    put(tmp_path, "z.crate")
    assert "holds data of several kinds: box (x.box), crate (z.crate); set data.dataset to one of them" in refusal()
    put(tmp_path, "label.txt", "lists/other.txt")
    assert choice().name == "list" and "has the label list label.txt; also there" in choice().line
    assert choice("lists/other.txt").name == "list"
    assert choice(str(tmp_path / "label.txt")).name == "list"


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"^data.dataset_dir='.*gone': cannot be read: No such file or directory"):
        Auto(tmp_path / "gone", "label.txt").choose()


def test_a_directory_as_it_is_listed(tmp_path):
    put(tmp_path, "b", "a", ".c", "d/x", "\udcff")
    os.symlink("loop", tmp_path / "loop")
    os.symlink("d", tmp_path / "e")
    found = list_directory(tmp_path, "label.txt")
    assert (found.files, found.folders) == (("a", "b", "loop", "\udcff"), ("d", "e"))
    assert (found.first("b", "a"), found.first(".x")) == ("a", "")


@pytest.mark.parametrize(("labels", "found"), [([0, 2, 1], 3), ([5], 6), ([2**31 - 2], 2**31 - 1)])
def test_a_list_counts_its_classes(tmp_path, labels, found):
    (tmp_path / "label.txt").write_text("".join(f"{label}.jpg\t{label}\n" for label in labels))
    source = LabelListSource(tmp_path, "label.txt", None)
    assert source.num_classes == found and [source._list.labels[i] for i in range(len(labels))] == labels


def test_a_label_that_no_number_of_classes_allows(tmp_path):
    (tmp_path / "label.txt").write_text(f"a.jpg\t{2**31 - 1}\nb.jpg\t3\n")
    with pytest.raises(DataError, match=r"with a label outside 0..2147483646 \(the most there can be\): label.txt:1:"):
        LabelListSource(tmp_path, "label.txt", None).check(check_files=False)


def test_images_of_a_folder_are_read_when_they_are_asked_for(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(file, "PNG")
    put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b" / "1.png").write_bytes(file.getvalue())
    source = FolderSource(tmp_path)
    assert source.read(1) == (file.getvalue(), 1)
    os.unlink(tmp_path / "b" / "1.png")
    with pytest.raises(DataError, match=r"^image '.*b/1.png' cannot be read: No such file or directory$"):
        source.read(1)
