"""Retries, checks after copying and what may be printed, against stores that misbehave."""

from __future__ import annotations

import pytest

from plsc.config import Config
from plsc.config.urls import masked
from plsc.errors import CheckpointError, ConfigError
from plsc.files.hashes import FileEntry, hash_file
from plsc.remote import open_store, transfer
from plsc.remote.fsspec_store import FsspecStore


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses that were made, in seconds, without making them."""
    made = []
    monkeypatch.setattr(transfer.time, "sleep", made.append)
    return made


class Faulty(FsspecStore):
    """A directory as a store that spoils the first `times` copies: `spoil(path of the copy)`, or an error to raise."""

    def __init__(self, directory, times, spoil):
        super().__init__(f"file://{directory}")
        self.left, self.spoil = times, spoil

    def _go_wrong(self, path):
        if self.left:
            self.left -= 1
            if isinstance(self.spoil, Exception):
                raise self.spoil
            with open(path, "r+b") as file:
                self.spoil(file)

    def put(self, local, name):
        super().put(local, name)
        self._go_wrong(self._path(name))

    def get(self, name, local):
        super().get(name, local)
        self._go_wrong(local)

    def write(self, name, data):
        super().write(name, data)
        self._go_wrong(self._path(name))


def cut(file):
    file.truncate(5)


def flip(file):
    file.write(b"X")


SPOILS = [cut, flip, ConnectionResetError("broken pipe"), ValueError("anything")]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(bytes(range(256)) * 40)
    return str(path), FileEntry(10240, hash_file(str(path)))


def copies(source, store, tmp_path):
    """The three ways to copy, each as a call."""
    path, entry = source
    (tmp_path / "there").mkdir(exist_ok=True)
    (tmp_path / "there" / "b.bin").write_bytes(open(path, "rb").read())
    return [
        lambda: transfer.upload(store, path, "deep/a.bin", entry),
        lambda: transfer.download(store, "b.bin", str(tmp_path / "got.bin"), entry),
        lambda: transfer.upload_bytes(store, "c.json", b"[1, 2, 3]"),
    ]


@pytest.mark.parametrize("way", range(3))
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_copy_that_fails_four_times_is_there_whole_after_the_fifth(source, tmp_path, way, spoil, pauses):
    copies(source, Faulty(tmp_path / "there", 4, spoil), tmp_path)[way]()
    assert pauses == [1, 2, 4, 8]
    whole = open(source[0], "rb").read()
    place, expected = [("there/deep/a.bin", whole), ("got.bin", whole), ("there/c.json", b"[1, 2, 3]")][way]
    assert (tmp_path / place).read_bytes() == expected


@pytest.mark.parametrize("way", range(3))
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_copy_that_fails_five_times_is_given_up(source, tmp_path, way, spoil, pauses):
    with pytest.raises(CheckpointError, match=rf"file://{tmp_path}/there/.*: .*\(tried 5 times\)$") as raised:
        copies(source, Faulty(tmp_path / "there", 5, spoil), tmp_path)[way]()
    assert pauses == [1, 2, 4, 8] and "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
def test_what_another_try_does_not_change_is_not_tried_again(source, tmp_path, error, pauses):
    with pytest.raises(CheckpointError, match=error.strerror):
        copies(source, Faulty(tmp_path / "there", 1, error), tmp_path)[0]()
    assert pauses == []


def test_a_damaged_file_of_this_machine_is_not_copied(source, tmp_path):
    path, entry = source
    with pytest.raises(CheckpointError, match=r"source.bin: size or SHA-256 differs from the manifest"):
        transfer.upload(FsspecStore(f"file://{tmp_path}/there"), path, "a", FileEntry(entry.num_bytes, "0" * 64))
    assert not (tmp_path / "there").exists()


SECRETS = [
    ("s3://AKIA:se/cr+et@bucket/dir", "s3://***@bucket/dir"),
    ("cannot open hdfs://me:secret@host:9000/x: no", "cannot open hdfs://***@host:9000/x: no"),
    ("GET https://b.example/k?X-Sig=secret&a=b failed", "GET https://b.example/k?*** failed"),
    ("s3://bucket/dir is fine", "s3://bucket/dir is fine"),
    ("mail me@host", "mail me@host"),
]


@pytest.mark.parametrize(("text", "expected"), SECRETS)
def test_keys_in_addresses_are_masked(text, expected):
    assert masked(text) == expected


REFUSED = [
    ("remote.save_url", "s3://KEY:secret@bucket/x", "without user, key or password"),
    ("remote.save_url", "s3://KEY:sec/secret@bucket/x", "without user, key or password"),
    ("remote.save_url", "s3://KEY/secret@bucket/x", "without user, key or password"),
    ("remote.save_url", "hdfs://me:secret@host:9000/x", "without user, key or password"),
    ("remote.save_url", "s3://bucket/x?sig=secret", "must not hold any of"),
    ("remote.save_url", "s3://bucket/../x", r"must not hold \.\."),
    ("remote.save_url", "ftp://host/secret", "begins with one of hdfs://, s3://, file://"),
    ("remote.save_url", "/local", "begins with one of"),
    ("remote.save_url", "s3://", "comes the bucket"),
    ("remote.save_url", "file://host/x", "three slashes"),
    ("checkpoint_dir", "s3://KEY:secret@bucket/x", "without user, key or password"),
    ("checkpoint_dir", "gs://bucket/x", "begins with one of"),
    ("model_save_dir", "s3://bucket/x", "is remote.save_url"),
    ("remote.fs_name", "host:9000", "write scheme://host"),
    ("remote.fs_name", "hdfs://me:secret@host", "without user or password"),
    ("remote.fs_dir_for_save", "relative", "begins with /"),
    ("remote.fs_checkpoint_dir", "/a/*", "must not hold any of"),
]


@pytest.mark.parametrize(("key", "value", "reason"), REFUSED)
def test_addresses_that_are_refused_when_they_are_set(key, value, reason):
    for change in (lambda config: config.set(key, value), lambda config: config.override([f"{key}='{value}'"])):
        with pytest.raises(ConfigError, match=reason) as raised:
            change(Config())
        assert "secret" not in str(raised.value).replace("/secret'", "") and key in str(raised.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(ConfigError, match=r"s3://b: needs the package s3fs \(.*\): `pip install 'fsspec.*' 's3fs"):
        open_store("s3://b", Config())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="hdfs://h/x: the command `hadoop` is not on the PATH; install"):
        open_store("hdfs://h/x", Config())
