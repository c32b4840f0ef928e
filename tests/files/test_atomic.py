"""A file or a directory is the old one or the new one, wherever its writer is killed or refused."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
from pathlib import Path

import pytest

from plsc.errors import DataError
from plsc.evaluation.output_files import write_text
from plsc.files import atomic, hashes

OLD, NEW = b"old", b"new" * 5000


class Calls:
    """Counts the calls into the system, and meets the n-th with ``fate``."""

    def __init__(self, monkeypatch, n=0, fate=None):
        self.left, self.fate, self.names = n, fate, []
        for name in ("open", "replace", "fsync", "unlink"):
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            self.names.append(name)
            self.left -= 1
            if self.left == 0:
                self.fate()
            return real(*args, **kwargs)

        return call


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_fork(action):
    """Exit code of a fork that ends like a killed process: nothing is cleaned up."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def new_file(path):
    atomic.write_bytes(path, NEW)


def new_directory(path):
    aside, replaced = f"{path}.aside", f"{path}.replaced"
    os.mkdir(aside)
    Path(aside, "a").write_bytes(NEW)
    atomic.flush_path(os.path.join(aside, "a"))
    atomic.put_directory(aside, str(path), replaced)


def make_old(path, action):
    if action is new_directory:
        path.mkdir()
        path = path / "a"
    path.write_bytes(OLD)


def whole_at(path, action):
    """What is there, after what the next writer does about a killed one."""
    if action is new_directory:
        atomic.restore(str(path), f"{path}.replaced")
        assert os.listdir(path) == ["a"]
        path = path / "a"
    return path.read_bytes()


@pytest.mark.parametrize("action", [new_file, new_directory])
def test_killed_at_any_step_the_old_or_the_new_is_there_whole(tmp_path, action):
    with pytest.MonkeyPatch.context() as patch:
        make_old(tmp_path / "count", action)
        names = Calls(patch).names
        action(tmp_path / "count")
    visible, seen = len(names) - names[::-1].index("replace"), []
    assert names[-2:] == ["open", "fsync"] and "fsync" in names[:visible]  # before the rename and after it
    for n in range(1, len(names) + 1):
        path = tmp_path / f"kill{n}"
        make_old(path, action)
        assert in_fork(lambda: (Calls(pytest.MonkeyPatch(), n, lambda: os._exit(9)), action(path))) == 9  # noqa: B023
        seen.append(whole_at(path, action))
        assert seen[-1] == (NEW if n > visible else OLD), n
    assert {OLD, NEW} == set(seen)


@pytest.mark.parametrize("action, before, after", [
    (new_file, ["the temporary file"], ["d"]), (new_directory, ["a", "x.aside"], ["d"]),
])  # fmt: skip
def test_all_is_on_disk_before_the_rename_and_the_rename_at_the_end(tmp_path, monkeypatch, action, before, after):
    """Flushed by name, in this order."""
    events, fsync, replace = [], os.fsync, os.replace

    def flushed(handle):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        events.append("the temporary file" if name.endswith(".tmp") else name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), replace(*paths)))
    (tmp_path / "d").mkdir()
    action(tmp_path / "d" / "x")
    assert events == [*before, "rename", *after]


@pytest.mark.parametrize("before", [True, False])
def test_refused_at_any_step_nothing_is_left(tmp_path, before):
    with pytest.MonkeyPatch.context() as patch:
        names = Calls(patch).names
        new_file(tmp_path / "count")
    for n in range(1, len(names) + 1):
        path = tmp_path / str(n) / "file"
        path.parent.mkdir()
        if before:
            path.write_bytes(OLD)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space left") as caught:
            Calls(patch, n, full)
            new_file(path)
        done = n > names.index("replace") + 1  # only the flush of the directory failed
        assert os.listdir(path.parent) == (["file"] if before or done else [])
        assert not path.exists() or path.read_bytes() == (NEW if done else OLD)
        assert done or caught.value.filename == str(path)


def test_a_disk_that_the_kernel_says_is_full(tmp_path):
    """A limit of the system, met in the middle of the bytes."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DataError, match=f"^--json {path}: cannot be written: File too large$"):
            write_text(path, NEW.decode(), "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == OLD and os.listdir(tmp_path) == ["file"]


def test_an_error_of_the_writer_itself(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt), atomic.whole_file(path) as file:
        file.write(NEW)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_written_to(tmp_path):
    """By a user who is not root, which may write everywhere."""
    closed, path = tmp_path / "closed", os.path.join("closed", "file")
    closed.mkdir()
    (closed / "file").write_bytes(OLD)
    closed.chmod(0o555)
    tmp_path.chmod(0o755)

    def as_nobody():
        os.chdir(tmp_path)  # the directories above are for their owner only
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            atomic.write_bytes(path, NEW)
        except PermissionError as error:
            os._exit(7 if error.filename == path and error.strerror == "Permission denied" else 8)

    assert in_fork(as_nobody) == 7
    assert (closed / "file").read_bytes() == OLD and os.listdir(closed) == ["file"]
    closed.chmod(0o755)


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(OLD)
    for there in (target, tmp_path / "nothing"):
        link.unlink(missing_ok=True)
        link.symlink_to(there)
        atomic.write_bytes(link, NEW)
        assert not link.is_symlink() and link.read_bytes() == NEW
    assert target.read_bytes() == OLD and sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_planted_link_is_not_written_through(tmp_path, monkeypatch):
    """Whoever can write to the directory guesses the name of the temporary file."""
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda _: "00000000")
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    (tmp_path / f".file.{os.getpid()}.00000000.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        atomic.write_bytes(tmp_path / "file", NEW)
    assert victim.read_bytes() == OLD


def test_the_rights_are_those_of_any_new_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    path.chmod(0o600)
    before = os.umask(0o027)
    try:
        atomic.write_bytes(path, NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_pipe_a_device_or_a_directory_is_not_replaced(tmp_path):
    """As root a rename would; a pipe of our own here, so that a fault takes nobody's /dev/null away."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="is a pipe, not a regular file"):
            atomic.write_bytes(path, NEW)
    with pytest.raises(IsADirectoryError):
        atomic.write_bytes(tmp_path, NEW)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode) and link.is_symlink() and len(os.listdir(tmp_path)) == 2


def test_a_name_alone_and_the_longest_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("file", "x" * 255):
        atomic.write_bytes(name, NEW)
        assert Path(name).read_bytes() == NEW
    assert len(os.listdir()) == 2


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    assert in_fork(lambda: (Calls(pytest.MonkeyPatch(), 1, lambda: os._exit(9)), new_file(tmp_path / "file"))) == 9
    kept = [".file.tmp", "file.1.00000000.tmp", ".file.x.00000000.tmp", "file"]
    for name in kept:
        (tmp_path / name).touch()
    assert len(os.listdir(tmp_path)) == 5
    atomic.remove_temporaries(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_rename_that_never_replaces(tmp_path):
    (tmp_path / "part").write_bytes(NEW)
    (tmp_path / "there").write_bytes(OLD)
    part = str(tmp_path / "part")
    with pytest.raises(FileExistsError):
        atomic.rename_new(part, str(tmp_path / "there"))
    atomic.rename_new(part, str(tmp_path / "free"))
    assert (tmp_path / "there").read_bytes() == OLD and sorted(os.listdir(tmp_path)) == ["free", "there"]


def test_hashes_are_those_of_hashlib(tmp_path, monkeypatch):
    monkeypatch.setattr(hashes, "READ_BYTES", 1000)  # several pieces
    path, expected = str(tmp_path / "file"), hashes.FileEntry(len(NEW), hashlib.sha256(NEW).hexdigest())
    assert hashes.write_new(path, NEW) == expected
    assert hashes.file_entry(path) == expected and hashes.hash_file(path) == hashes.hash_bytes(NEW) == expected.sha256
    with pytest.raises(FileExistsError):
        hashes.write_new(path, NEW)
