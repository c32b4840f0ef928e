"""The lock of a run's directory: one holder, free when it ends however it ends, by lease where locks do not reach."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import threading
import time

import pytest

from plsc.checkpoint import lock as module
from plsc.checkpoint.layout import LOCK
from plsc.checkpoint.lock import LEASE_SECONDS, RunDirInUse, RunLock

ELSEWHERE = {"token": "x", "host": "other", "pid": 7, "kernel": "another", "since": "2026-11-29 12:00:00"}


def hold_in_a_fork(run_dir) -> int:
    """The process of a fork that holds the lock by now."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            held = RunLock(str(run_dir))
            os.write(writer, b"!")
            signal.pause()
            held.release()
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"!"
    os.close(reader)
    return child


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_second_is_refused_and_told_who_holds_it(tmp_path):
    child = hold_in_a_fork(tmp_path)
    try:
        with pytest.raises(RunDirInUse) as error:
            RunLock(str(tmp_path))
    finally:
        kill(child)
    assert f"process {child} on {os.uname().nodename} trains there since 2" in str(error.value)
    assert "\n" not in str(error.value) and f"model_save_dir={str(tmp_path)!r}" in str(error.value)
    with RunLock(str(tmp_path)):  # a killed holder holds nothing
        pass
    assert os.listdir(tmp_path) == []


def test_twice_in_one_process(tmp_path):
    with RunLock(str(tmp_path)), pytest.raises(RunDirInUse, match=f"process {os.getpid()} on"):
        RunLock(str(tmp_path))
    with RunLock(str(tmp_path)):
        pass


def test_a_fork_does_not_hold_it_for_its_parent(tmp_path):
    held = RunLock(str(tmp_path))
    (ready, is_ready), (wait, go_on) = os.pipe(), os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(is_ready, b"!")
        os.read(wait, 1)
        os._exit(0 if held._released.is_set() else 1)
    try:
        assert os.read(ready, 1) == b"!"
        os.close(held._fd)  # what the kernel does to a holder that dies
        held._released.set()
        with RunLock(str(tmp_path)):
            pass
    finally:
        os.write(go_on, b"!")
        code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    assert code == 0


def test_one_of_many_that_start_at_once_gets_it(tmp_path):
    results: list[object] = []
    start = threading.Barrier(8)

    def attempt():
        start.wait()
        try:
            results.append(RunLock(str(tmp_path)))
        except RunDirInUse as error:
            results.append(error)

    for _ in range(10):
        results.clear()
        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [result for result in results if isinstance(result, RunLock)]
        assert len(results) == 8 and len(winners) == 1
        winners[0].release()


def test_a_file_that_its_holder_takes_away_meanwhile_is_not_the_lock(tmp_path, monkeypatch):
    class Late:
        """The holder releases between the moment when the file is opened and the one when it is locked."""

        LOCK_EX, LOCK_NB = fcntl.LOCK_EX, fcntl.LOCK_NB
        calls = 0

        @classmethod
        def flock(cls, fd, how):
            cls.calls += 1
            if cls.calls == 1:
                os.unlink(tmp_path / LOCK)
            fcntl.flock(fd, how)

    monkeypatch.setattr(module, "fcntl", Late)
    with RunLock(str(tmp_path)), pytest.raises(RunDirInUse):
        RunLock(str(tmp_path))
    assert Late.calls == 3


def leave_lease(tmp_path, age: float, **changes) -> None:
    path = tmp_path / LOCK
    path.write_text(json.dumps({**ELSEWHERE, **changes}))
    now = time.time()
    os.utime(path, (now - age, now - age))


def test_another_machine_holds_it_until_its_lease_is_over(tmp_path):
    leave_lease(tmp_path, age=20.0)
    with pytest.raises(
        RunDirInUse, match="process 7 on other trains there since 2026-11-29 12:00:00, or was killed"
    ) as error:
        RunLock(str(tmp_path))
    left = float(re.search(r"free at \d\d:\d\d:\d\d, in (\d+) s", str(error.value))[1])
    assert LEASE_SECONDS - 20.0 - 10.0 <= left <= LEASE_SECONDS - 20.0  # the ten for a loaded machine
    assert json.loads((tmp_path / LOCK).read_text()) == ELSEWHERE
    leave_lease(tmp_path, age=LEASE_SECONDS + 1.0)
    with RunLock(str(tmp_path)):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_lease_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.06)
    with RunLock(str(tmp_path)):
        os.utime(tmp_path / LOCK, (0, 0))
        while os.stat(tmp_path / LOCK).st_mtime == 0:
            time.sleep(0.01)


def test_it_is_not_closed_while_it_is_renewed(tmp_path, monkeypatch):
    """The number of the file could be that of a checkpoint by then."""
    inside, go_on, looked = threading.Event(), threading.Event(), []
    usual = RunLock._lost

    def slow(held) -> bool:
        if threading.current_thread().name == "plsc-lock" and not inside.is_set():
            inside.set()
            go_on.wait()
        looked.append(os.fstat(held._fd).st_ino)  # OSError where it is closed
        return usual(held)

    monkeypatch.setattr(module, "LEASE_SECONDS", 0.06)
    monkeypatch.setattr(RunLock, "_lost", slow)
    held = RunLock(str(tmp_path))
    inside.wait()
    releasing = threading.Thread(target=held.release)
    releasing.start()
    releasing.join(0.2)
    assert releasing.is_alive() and os.fstat(held._fd)
    go_on.set()
    releasing.join()
    assert len(set(looked)) == 1 and os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kernel": 3, "pid": "x"}'])
def test_a_file_that_says_nothing_useful(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    os.utime(tmp_path / LOCK, (0, 0))
    with RunLock(str(tmp_path)):
        pass


class WithoutLocks:
    """fcntl on a file system that has no locks."""

    LOCK_EX = LOCK_NB = 0

    @staticmethod
    def flock(fd, how):
        raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_the_lease_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fcntl", WithoutLocks)
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.01)
    child = hold_in_a_fork(tmp_path)
    try:
        with pytest.raises(RunDirInUse, match=f"process {child} on"):
            RunLock(str(tmp_path))
    finally:
        kill(child)
    with RunLock(str(tmp_path)):  # its process is gone from this machine
        pass
    leave_lease(tmp_path, age=1.0)
    with pytest.raises(RunDirInUse, match="on other trains there"):
        RunLock(str(tmp_path))


def test_who_lost_it_meanwhile_is_told(tmp_path, monkeypatch):
    lost = threading.Event()
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.06)
    held = RunLock(str(tmp_path), on_loss=lambda reason: lost.set())
    (tmp_path / LOCK).write_text(json.dumps(ELSEWHERE))
    assert lost.wait(30)
    held.release()
    assert (tmp_path / LOCK).exists()  # it is the other one's


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        RunLock(str(tmp_path))
    assert (tmp_path / "victim").read_text() == "mine"
