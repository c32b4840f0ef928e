"""HDFS through a stand-in for the command `hadoop`, which keeps its files in a directory and notes its calls."""

from __future__ import annotations

import json
import os
import time

import pytest

from plsc.config import Config
from plsc.errors import CheckpointError
from plsc.files.hashes import FileEntry, hash_file
from plsc.remote import check_destination, fetch_initial_checkpoint, open_store, publish_checkpoints, transfer
from plsc.remote.hadoop_store import HadoopStore
from tests.checkpoint.checkpoint_kit import save_as
from tests.remote.remote_kit import FakeRun, install_hadoop, on_runs, raise_first, tree

UGI = "me,a&secret<word"
NAMED = {"fs_name": "afs://cluster:9000", "fs_ugi": UGI}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_DELAYS", (0.0, 0.0))


def calls(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_there_and_back_with_the_password_in_no_list_of_processes(monkeypatch, tmp_path, caplog):
    disk, log = install_hadoop(monkeypatch, tmp_path)
    local = save_as(tmp_path / "my run", 4, 7, 2)  # a space in the path: nothing is split
    settings = {"remote": {**NAMED, "fs_dir_for_save": "/user/me"}}

    def work(run):
        check_destination(run)
        publish_checkpoints(run)
        return run.log.lines

    lines = raise_first(on_runs([tmp_path / "my run"] * 2, settings, work))
    assert tree(disk / "cluster:9000" / "user" / "me") == {
        f"checkpoints/step_00000004/{name}": data for name, data in tree(local).items()
    }
    start = {"remote": {**NAMED, "fs_checkpoint_dir": "/user/me"}}
    run = FakeRun(tmp_path / "other", start)
    assert tree(fetch_initial_checkpoint(run, None)) == tree(local)
    assert len(calls(log)) > 10
    for arguments, conf in calls(log):
        assert "secret" not in str(arguments)
        expected = {"fs.defaultFS": NAMED["fs_name"], "fs.default.name": NAMED["fs_name"], "hadoop.job.ugi": UGI}
        assert conf == {**expected, "mode": "0o600"}
        assert not os.path.exists(arguments[2])  # the file with the password is gone
    assert "secret" not in str(lines) + str(run.log.lines) + caplog.text


def test_an_address_needs_no_other_key(monkeypatch, tmp_path):
    disk, log = install_hadoop(monkeypatch, tmp_path)
    store = open_store("hdfs://host:9000/a", Config())
    assert isinstance(store, HadoopStore) and store.files() == {}
    store.write("b/c d.txt", b"123")
    assert store.files() == {"b/c d.txt": 3} and store.read("b/c d.txt") == b"123"
    store.delete("b/c d.txt")
    store.delete("b/c d.txt")
    assert tree(disk) == {}
    assert all("-conf" not in arguments for arguments, _ in calls(log))


@pytest.mark.parametrize("listed", ["hdfs://host/a/x y", "/a/x y"])
def test_both_ways_in_which_hadoop_lists_a_path(monkeypatch, tmp_path, listed):
    listing = "Found 2 items\ndrwxr-xr-x   - me g 0 2024-01-01 10:00 /a/b\n-rw-r--r--   3 me g 12 2024-01-01 10:00 "
    install_hadoop(monkeypatch, tmp_path, f"print({listing + listed!r}); sys.exit(0)")
    assert HadoopStore("hdfs://host/a/", None, None).files() == {"x y": 12}


FAILURES = [
    ("fail('put: Quota exceeded')", r"hadoop fs -mkdir: exit status 1: put: Quota exceeded \(tried 3 times\)"),
    ("fail('mkdir: Permission denied: user=me')", r"Permission denied: user=me$"),
    ("fail('org.X: bad login ' + settings['hadoop.job.ugi'])", r"bad login \*\*\* \(tried 3 times\)"),
    ("fail('bad password ' + settings['hadoop.job.ugi'].split(',')[1])", r"bad password \*\*\* \(tried 3 times\)"),
    ("sys.exit(3)", r"exit status 3: no reason given \(tried 3 times\)"),
]


@pytest.mark.parametrize(("extra", "reason"), FAILURES)
def test_its_exit_status_and_reason_are_told_without_the_password(monkeypatch, tmp_path, caplog, extra, reason):
    fail = "def fail(text):\n    print(text, chr(9) + 'at java.X', sep=chr(10), file=sys.stderr)\n    sys.exit(1)\n"
    install_hadoop(monkeypatch, tmp_path, fail + extra)
    run = FakeRun(tmp_path, {"remote": {**NAMED, "fs_dir_for_save": "/user/me"}})
    with pytest.raises(CheckpointError, match=reason) as raised:
        check_destination(run)
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value) + caplog.text


def state_of(pid: int) -> str:
    """The letter of its state, Z for one that has ended and waits for its parent; "gone" where there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def test_a_command_that_hangs_is_ended_with_what_it_started(monkeypatch, tmp_path):
    child = "import subprocess; child = subprocess.Popen(['sleep', '120']); print(child.pid, flush=True); child.wait()"
    install_hadoop(monkeypatch, tmp_path, child)
    began, printed = time.monotonic(), []
    store = HadoopStore("hdfs://host/a", None, None, seconds=1.5)
    with pytest.raises(OSError, match="killed, after the limit of 1.5 s"):
        store._run("-cat", "hdfs://host/a", on_block=printed.append)
    assert time.monotonic() - began < 40  # the command sleeps for 120
    deadline = time.monotonic() + 30  # a killed process takes a moment to go
    while state_of(int(printed[0])) not in ("gone", "Z") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state_of(int(printed[0])) in ("gone", "Z")


def test_a_put_that_loses_bytes_is_noticed(monkeypatch, tmp_path):
    lose = "if '-put' in arguments: open(arguments[3].replace('hdfs://', DISK + '/'), 'w').close(), sys.exit(0)"
    install_hadoop(monkeypatch, tmp_path, lose)
    (tmp_path / "x").write_bytes(b"12345")
    entry = FileEntry(5, hash_file(str(tmp_path / "x")))
    with pytest.raises(CheckpointError, match=r"hdfs://host/a/x: .*received 0 of 5 bytes \(tried 3 times\)"):
        transfer.upload(HadoopStore("hdfs://host/a", None, None), str(tmp_path / "x"), "x", entry)
