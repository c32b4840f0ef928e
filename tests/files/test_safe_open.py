"""Pipes, devices and files without end, wherever a file is opened that somebody else may have made."""

from __future__ import annotations

import ast
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from plsc.checkpoint.manifest import carries_manifest, read_manifest
from plsc.checkpoint.old_plsc import OldCheckpoint
from plsc.config import Config
from plsc.data import ImageListDataset, decode_image
from plsc.data.label_map import read_label_map
from plsc.engine.inference.predictions import PredictionFiles
from plsc.errors import PlscError
from plsc.evaluation import ijb
from plsc.evaluation.pair_sets import ImageFiles, load_pair_list, load_pairs
from plsc.files import safe_open
from plsc.files.hashes import hash_file
from plsc.serving import find_images
from plsc.serving.description import read_description
from plsc.serving.gallery import read_predictions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_test_hangs():
    """What waits for a pipe or reads /dev/zero is ended; a good run takes no time to speak of."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits, or reads without end"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def listed(directory: Path) -> ImageListDataset:
    (directory / "label.txt").write_text("x\t0\n")
    return ImageListDataset(directory, "label.txt", 2, (3, 4, 4), 0)


def gallery(directory: Path) -> None:
    with open(directory / "features.npy", "wb") as file:
        np.save(file, np.zeros((2, 3), np.float32))
    read_predictions(os.fspath(directory))


# (the name of the file that is none, what reads it)
READERS = {
    "a picture": ("x", lambda d: decode_image(d / "x")),
    "a picture of a list": ("x", lambda d: listed(d).get(0, 0)),
    "a picture of a pair": ("x", lambda d: ImageFiles([str(d / "x")], ["set"])[0]),
    "label list": ("x", lambda d: ImageListDataset(d, "x", 2, (3, 4, 4), 0)),
    "label map": ("x", lambda d: read_label_map(str(d / "x"), 2, 2)),
    "verification set": ("x.bin", lambda d: load_pairs(d / "x.bin", "x")),
    "pair list": ("x.txt", lambda d: load_pair_list(d / "x.txt", "x")),
    "pictures to predict": ("x", lambda d: find_images(str(d / "x"))),
    "configuration": ("x.yaml", lambda d: Config.from_yaml(d / "x.yaml")),
    "gallery": ("features.npy", lambda d: read_predictions(str(d))),
    "gallery's table": ("pictures.csv", gallery),
    "exported model": ("plsc.json", lambda d: read_description(str(d))),
    "manifest": ("manifest.json", lambda d: read_manifest(str(d))),
    "old checkpoint": ("meta.json", lambda d: OldCheckpoint.open(str(d))),
    "IJB faces": ("x", lambda d: ijb.read_faces(d / "x")),
    "IJB pairs": ("x", lambda d: ijb.read_pairs(d / "x")),
}
PLACES = {
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: os.symlink("/dev/zero", path),
    "a directory": lambda path: os.mkdir(path),
    "a name without file": lambda path: os.symlink("nowhere", path),
}


# A directory is a folder of identities, or of pictures.
TAKES_DIRECTORIES = ("verification set", "pictures to predict")


@pytest.mark.parametrize(("reader", "kind"), [
    (reader, kind) for reader in READERS for kind in PLACES
    if not (kind == "a directory" and reader in TAKES_DIRECTORIES)
])  # fmt: skip
def test_what_is_no_file_is_refused_in_one_line(tmp_path, reader, kind):
    name, read = READERS[reader]
    PLACES[kind](tmp_path / name)
    with pytest.raises(PlscError) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    said = {"a directory": "directory", "a name without file": "o such file|not found|not there"}
    assert any(words in str(caught.value) for words in said.get(kind, kind).split("|")), str(caught.value)


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_is_no_file_is_not_even_opened(tmp_path, monkeypatch, kind):
    """To open a device may already do something: a tape is wound back."""
    PLACES[kind](tmp_path / "x")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it is opened"))
    with pytest.raises(OSError, match=f"is {kind}"):
        safe_open.read_bytes(tmp_path / "x", 10)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    for name, most, read in (
        ("x.yaml", safe_open.YAML, lambda: Config.from_yaml(tmp_path / "x.yaml")),
        ("x", safe_open.IMAGE, lambda: decode_image(tmp_path / "x")),
        ("manifest.json", safe_open.MANIFEST, lambda: read_manifest(str(tmp_path))),
    ):
        with open(tmp_path / name, "wb") as file:
            file.truncate(most + 1)
        with pytest.raises(PlscError, match=f"{name}.*has {most + 1:,} bytes; at most {most:,} are allowed"):
            read()


def test_files_that_nothing_is_said_of(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    assert not carries_manifest(str(tmp_path))
    os.mkdir(tmp_path / "final")
    os.mkfifo(tmp_path / "final" / "predictions.json")
    with pytest.raises(PlscError):  # not ours: it is not looked into, and not replaced either
        PredictionFiles(str(tmp_path / "final"), ["a"], 3, {}, True).finish()


def test_the_same_bytes_as_open_gives(tmp_path):
    path = tmp_path / "x"
    for data in (b"", b"a\r\nb", bytes(range(256)) * 5000):
        path.write_bytes(data)
        os.symlink(path, tmp_path / "link")
        assert safe_open.read_bytes(path, len(data)) == data == safe_open.read_bytes(tmp_path / "link", 2**40)
        os.unlink(tmp_path / "link")
    with safe_open.open_text(path, 2**40, "latin-1", newline="") as text:
        assert text.read() == data.decode("latin-1")
    assert len(hash_file(str(path))) == 64


def test_a_file_that_grows_is_not_read_for_ever(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    real = safe_open.open_bytes

    def open_and_grow(name, most):
        file = real(name, most)
        Path(name).write_bytes(bytes(3 * safe_open.MIB))
        return file

    monkeypatch.setattr(safe_open, "open_bytes", open_and_grow)
    with pytest.raises(OSError, match="at most 10 are allowed"):
        safe_open.read_bytes(path, 10)
    path.write_bytes(b"abc")
    assert len(safe_open.read_bytes(path, 4 * safe_open.MIB)) == 3 * safe_open.MIB


def test_files_of_the_kernel_that_have_no_size_are_read():
    assert b"processor" in safe_open.read_bytes("/proc/cpuinfo", safe_open.SETTINGS)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(OSError) as caught:
        safe_open.read_bytes(name, 1)
    assert "is not a valid file name" in caught.value.strerror


def test_an_exchange_between_looking_and_opening_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    real = os.open

    def exchange(name, flags, *rest):
        os.unlink(path)
        os.mkfifo(path)
        return real(name, flags, *rest)

    monkeypatch.setattr(os, "open", exchange)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="is a pipe"):
        safe_open.read_bytes(path, 10)
    assert len(os.listdir("/proc/self/fd")) == before  # it is closed again


# Calls that do not go through safe_open, and why.
ALLOWED = {
    ("plsc/files/safe_open.py", "os.open"): "this is safe_open",
    ("plsc/data/containers/labelled.py", "self.files.open"): "by safe_open, in plsc.data.containers.files",
    ("plsc/data/transforms.py", "Image.open"): "bytes in memory, image formats only",
    ("plsc/data/jpeg.py", "Image.open"): "bytes in memory, encoded by the same module",
    ("plsc/data/packing/lmdb.py", "lmdb.open"): "to write, in a directory of the packer's own",
    ("plsc/parallel/launch_logs.py", "os.open"): "writes too: no link, non-blocking, regular, bounded, the user's",
    ("plsc/parallel/ports.py", "open"): "the kernel's",
    ("plsc/terminal.py", "os.open"): "/dev/null",
    ("plsc/engine/memory/free.py", "open"): "the kernel's (cgroups)",
    ("plsc/checkpoint/lock.py", "os.open"): "the lock: created here, its first 4096 bytes are read without waiting",
    ("plsc/files/atomic.py", "os.open"): "directories and results, to flush them; without waiting",
    ("plsc/data/folder_index.py", "process.read_text"): "the kernel's",
    ("plsc/data/folder_index.py", "machine.read_text"): "the kernel's",
    ("plsc/backend/cpu.py", "cpuinfo.read_text"): "the kernel's",
    ("plsc/files/private_directory.py", "os.open"): "in a directory where nobody else can write",
    ("plsc/files/working_directory.py", "os.open"): "a directory, to lock it",
    ("plsc/backend/compiler.py", "cpuinfo.read_text"): "the kernel's",
    ("plsc/backend/compiler.py", "source.read_text"): "our own C++, beside this file",
    ("plsc/checkpoint/old_plsc.py", "OldCheckpoint.open"): "opens no file by itself",
    ("plsc/cli/ijb.py", "np.load"): "mapped after safe_open has checked it",
    ("plsc/evaluation/ijb.py", "np.loadtxt"): "reads from what safe_open opened",
    ("plsc/remote/fsspec_store.py", "self._fs.open"): "an address, by its driver",
}
READS = {"open", "read_text", "read_bytes", "load", "loadtxt", "genfromtxt", "fromfile", "open_memmap", "readlines"}
OF_MODULES = {"np", "numpy", "os", "io", "Image", "pickle", "yaml"}


def openings(source: str) -> list[str]:
    """Every call that may open a file for reading: "open", "Image.open", "path.read_text", ..."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called, first = ast.unparse(node.func), node.args[0] if node.args else None
        name = called.rpartition(".")[2]
        if name not in READS or called.startswith("safe_open."):
            continue
        if name in ("load", "readlines") and called.partition(".")[0] not in OF_MODULES:
            continue  # Loader.load, image.load: no files
        mode = node.args[1] if len(node.args) > 1 else None
        writes = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) & set("wax")
        kernel = isinstance(first, ast.Constant) and str(first.value).startswith("/proc/")
        if called == "open" and (writes or kernel):
            continue
        found.append(called)
    return found


def test_nothing_else_opens_files():
    found = {
        (path.relative_to(ROOT).as_posix(), call)
        for path in sorted((ROOT / "plsc").rglob("*.py"))
        for call in openings(path.read_text(encoding="utf-8"))
    }
    known = {(file, call) for file, call in found if (file, call) in ALLOWED}
    assert found - known == OWN_FILES, "use plsc.files.safe_open, or say here why not"
    assert set(ALLOWED) == known, "is allowed and not done any more"


# Files that a run made itself and goes on writing.
OWN_FILES = {
    ("plsc/engine/inference/predictions.py", "open"),  # features.npy, to append to it
    ("plsc/engine/run/scalars.py", "open"),  # scalars.jsonl, to take half a line away
}


@pytest.mark.parametrize("line", [
    "open(path)", "open(path, 'rb')", "open(path, mode='w')", "io.open(path)", "os.open(path, os.O_RDONLY)",
    "Path(path).read_text()", "np.load(path)", "numpy.fromfile(path)", "Image.open(path)", "path.open()",
])  # fmt: skip
def test_a_planted_opening_is_found(line):
    assert len(openings(line)) == 1


def test_state_that_is_no_state_begins_anew(tmp_path):
    """predictions.json of somebody else: other types, too deep, too large."""
    for text in ("[]", '{"done": 1e999}', "[" * 100_000, json.dumps({"done": "1", "header_bytes": 1})):
        final = tmp_path / "final"
        unfinished = Path(f"{final}.unfinished")
        unfinished.mkdir(exist_ok=True)
        (unfinished / "predictions.json").write_text(text)
        (unfinished / "features.npy").write_bytes(bytes(500))
        files = PredictionFiles(str(final), ["a"], 3, {}, True)
        assert files.done == 0
