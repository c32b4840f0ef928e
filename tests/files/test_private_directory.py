"""The lock of a private directory: one process at a time, and no file that stays."""

from __future__ import annotations

import os
import signal
import time

import pytest

from plsc.data.workers import call_in_fork
from plsc.files import private_directory
from plsc.files.private_directory import open_directory

PROCESSES, ROUNDS = 4, 60


@pytest.fixture
def directory(tmp_path):
    with open_directory(os.path.realpath(tmp_path / "cache")) as found:
        yield found


def test_one_process_at_a_time_and_no_file_stays(directory):
    """Each process adds 1 to a number in a file, again and again; what two do at once would be lost."""
    number = directory.path / "number"
    number.write_text("0")

    def count():
        for _ in range(ROUNDS):
            with directory.locked("lock"):
                found = int(number.read_text())
                time.sleep(0)
                number.write_text(f"{found + 1}")

    def all_at_once() -> list[int]:
        children = []
        for _ in range(PROCESSES):
            pid = os.fork()
            if not pid:
                signal.alarm(60)
                status = 1
                try:
                    count()
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        return [os.waitpid(pid, 0)[1] for pid in children]

    assert call_in_fork(all_at_once) == [0] * PROCESSES
    assert number.read_text() == f"{PROCESSES * ROUNDS}" and os.listdir(directory.path) == ["number"]


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(directory, monkeypatch):
    """Its owner removes it between open and flock of another process, which then is not alone with the old file."""
    real, handles = private_directory.fcntl.flock, []

    def removed_first(handle, how):
        handles.append(handle)
        if len(handles) == 1:
            directory.remove("lock")
        real(handle, how)

    monkeypatch.setattr(private_directory.fcntl, "flock", removed_first)
    with directory.locked("lock"):
        assert len(handles) == 2
        assert os.path.samestat(os.fstat(handles[1]), os.stat(directory.path / "lock"))
    assert os.listdir(directory.path) == []


def test_an_error_inside_leaves_no_lock_file(directory):
    with pytest.raises(ZeroDivisionError), directory.locked("lock"):
        raise ZeroDivisionError
    assert os.listdir(directory.path) == []


def test_a_file_that_is_always_another_one_is_an_error(directory, monkeypatch):
    """As a file system without numbers of its files may have it: no endless loop."""
    monkeypatch.setattr(private_directory, "_MOST_TRIES", 5)
    monkeypatch.setattr(private_directory.os.path, "samestat", lambda *_: False)
    with pytest.raises(OSError, match="lock cannot be locked: it is always another file"), directory.locked("lock"):
        pass
