"""The index of a large folder of identities: one for all processes of the machine, and never an old one."""

from __future__ import annotations

import errno
import os
import random
import signal
import time

import pytest

from plsc.data import folder_index, shared_index
from plsc.data.identity_walk import walk
from plsc.data.label_list import printable
from plsc.data.sources.folder import FolderSource
from plsc.errors import DataError
from plsc.files import texts
from plsc.files.texts import FileText, GrowingText, HeldText

PATHS = ["b/2.jpg", "b/in/1.jpg", "a/x.jpg", "a/new\nline.jpg", "c/1.jpg", "b/1.png"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder that counts as large, and whose times are not new."""
    monkeypatch.setattr(folder_index, "LEAST_IMAGES", 1)
    monkeypatch.setattr(folder_index, "_SURE_NS", -(10**12))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put(tmp_path / "root", *PATHS)
    return tmp_path / "root"


def put(root, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def how(source: FolderSource) -> str:
    """What the log says about the index."""
    return source.notes[0].partition(": index ")[2].partition(",")[0]


def contents(source: FolderSource) -> list:
    return [source.read(index) for index in range(len(source))]


def test_it_gives_what_the_folder_gives(root, monkeypatch):
    with monkeypatch.context() as small:
        small.setattr(folder_index, "LEAST_IMAGES", 10**9)
        plain = FolderSource(root)
        assert plain.notes == [] and not (root.parent / "cache").exists()
    put(root, "a/notes.txt", ".hidden/x.jpg")
    for said in ("made now", "kept from before"):
        source = FolderSource(root)
        assert how(source) == said and isinstance(source._index.text, FileText)
        assert contents(source) == contents(plain) == [(path.encode(), "abc".index(path[0])) for path in sorted(PATHS)]
        assert source.record() == plain.record() and source.record(3) == plain.record(3)
        assert source.class_names == plain.class_names == ["a", "b", "c"] and source.name(1) == plain.name(1)
        assert not source._index.labels.flags.writeable and not source._index.starts.flags.writeable
        assert sorted(note.partition(" such as ")[0] for note in source.notes[1:]) == [
            f"{root}: passed over 1 file(s) that are no images by their names or no files,",
            f"{root}: passed over 1 hidden name(s), which begin with a dot,",
        ]
    with pytest.raises(DataError, match="has 3 folders with images, more than classifier.num_classes=2"):
        FolderSource(root, 2)


CHANGES = {
    "an image more": lambda root: put(root, "a/more.jpg"),
    "an image more, deep inside": lambda root: put(root, "b/in/more.jpg"),
    "an image less": lambda root: (root / "c/1.jpg").unlink(),
    "another name": lambda root: (root / "a/x.jpg").rename(root / "a/y.jpg"),
    "a class more": lambda root: put(root, "aa/1.jpg"),
    "a folder in the place of another": lambda root: [
        (root / "c").rename(root.parent / "old"), put(root.parent, "x/9.jpg"), (root.parent / "x").rename(root / "c")
    ],
    "a folder in the place of a folder that is linked": lambda root: [
        (root / "b/in").rename(root / "b/.old"), put(root, "b/.new/9.jpg"), (root / "b/.new").rename(root / "b/in")
    ],
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_has_changed_is_listed_again(root, change):
    os.symlink("../b/in", root / "c" / "linked")
    assert how(FolderSource(root)) == "made now" and how(FolderSource(root)) == "kept from before"
    before = FolderSource(root)
    old = [before.file(index) for index in range(len(before))]
    CHANGES[change](root)
    source = FolderSource(root)
    assert how(source) == "made now" and len(source) == len(contents(source))
    assert [source.file(index) for index in range(len(source))] != old
    assert [before.file(index) for index in range(len(before))] == old, "who has the old index keeps it"


def test_each_run_lists_it_again(root, monkeypatch):
    """Also where the file system does not keep the times of folders: an index from before this process is not used."""
    assert how(FolderSource(root)) == "made now" and how(FolderSource(root)) == "kept from before"
    monkeypatch.setattr(folder_index, "_process_start_ns", lambda: time.time_ns() + 10**9)
    assert how(FolderSource(root)) == "made now"


def test_a_change_at_the_time_of_the_listing_is_not_missed(root, monkeypatch):
    """Times of folders come in steps of some milliseconds: a second change may have the time of the first."""
    monkeypatch.setattr(folder_index, "_SURE_NS", 2 * 10**9)
    assert [how(FolderSource(root)) for _ in range(2)] == ["made now", "made now"]


def test_the_start_of_this_process():
    """Between a minute of the clock of the kernel and now: a forked child began later than its parent."""
    began = folder_index._process_start_ns()
    reader, writer = os.pipe()
    time.sleep(0.05)
    pid = os.fork()
    if not pid:
        os.write(writer, str(folder_index._process_start_ns()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    later = int(os.read(reader, 99))
    for handle in (reader, writer):
        os.close(handle)
    assert time.time_ns() - 86400 * 10**9 < began < later < time.time_ns() + 10**9


def test_one_process_lists_it_and_the_others_wait(root, monkeypatch):
    listed = root.parent / "listed"
    real = walk

    def walk_slowly(*arguments):
        with open(listed, "a") as file:
            file.write("x")
        time.sleep(0.3)
        return real(*arguments)

    monkeypatch.setattr("plsc.data.sources.folder.walk", walk_slowly)
    began = folder_index._process_start_ns()
    monkeypatch.setattr(folder_index, "_process_start_ns", lambda: began)  # that of four ranks
    children = []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            os._exit(0 if len(FolderSource(root)) == len(PATHS) else 1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert listed.read_text() == "x"


def test_an_error_is_that_of_the_folder(root):
    put(root, "a/" + "d/" * 20 + "1.jpg")
    for _ in range(2):
        with pytest.raises(DataError, match="nested more than 16 deep"):
            FolderSource(root)


def test_how_many_images_are_expected(root, monkeypatch):
    made = folder_index.MadeFromFolder("folder", [str(root)])
    assert [(monkeypatch.setattr(folder_index, "LEAST_IMAGES", count), made.is_large)[1] for count in (6, 7)] == [1, 0]
    for number in range(100):  # of 103 folders some are looked at, with 5 files or with 1 to 3
        put(root, *(f"n{number}/{image}.jpg" for image in range(5)))
    monkeypatch.setattr(folder_index, "LEAST_IMAGES", 480)
    assert made.is_large
    monkeypatch.setattr(folder_index, "LEAST_IMAGES", 530)
    assert not made.is_large
    assert not folder_index.MadeFromFolder("folder", [str(root / "none")]).is_large


@pytest.mark.parametrize("failing", ["never", "no file", "at the first bytes", "later", "always held"])
def test_bytes_that_are_added(tmp_path, monkeypatch, failing):
    """Where the temporary file cannot be written, what was in it is in memory again."""
    most = 10**9 if failing == "always held" else 100
    growing, expected, written = GrowingText(lambda: str(tmp_path / ("none" if failing == "no file" else "."))), b"", []
    growing._most_held = most
    real = texts._write_all

    def write_all(handle, content):
        written.append(content)
        if failing == "at the first bytes" or (failing == "later" and len(written) > 4):
            os.write(handle, content[:7])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle, content)

    monkeypatch.setattr(texts, "_write_all", write_all)
    rng = random.Random(0)
    for _ in range(100):
        more = rng.randbytes(rng.randrange(60))
        expected += more
        growing.add(more)
    text = growing.text()
    assert type(text) is (FileText if failing == "never" else HeldText)
    assert text.read(0, len(text)) == expected and text.read(50, 500) == expected[50:500]
    assert len(growing._held) < 200 if failing == "never" else len(growing._held) == len(expected)
    assert not list(tmp_path.iterdir())


def test_the_paths_of_many_images_are_not_in_memory_while_they_are_listed(root, monkeypatch):
    monkeypatch.setattr(GrowingText.__init__, "__defaults__", (lambda: None, 8))
    monkeypatch.setattr(folder_index, "LEAST_IMAGES", 10**9)
    source = FolderSource(root)
    assert isinstance(source._index.text, FileText) and source.notes == []
    assert [source.file(index) for index in range(6)] == [os.fsencode(root / path) for path in sorted(PATHS)]
    assert printable(os.fsencode(root))[1:-1] in source.name(0)


def test_without_a_cache_each_process_lists_it(root, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "~/relative")
    assert shared_index.temporary_directory() is None
    source = FolderSource(root)
    assert "each process keeps its own index" in source.notes[0] and len(contents(source)) == len(PATHS)
