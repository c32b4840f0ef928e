"""Real launchers: plsc.launch saves and ends with 75; a launcher that is killed takes its ranks along."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import plsc.launch
from plsc.checkpoint import OneRank, latest, open_checkpoint
from plsc.engine.run.stopping import EXIT_STOPPED
from tests.dist.ranks import ROOT

SECONDS = 240  # what a machine with ten other runs may take to start two ranks


def launch(module: str, cwd: Path, save_seconds: float, ranks: int = 2) -> subprocess.Popen:
    command = [sys.executable, "-m", module, "--nproc_per_node", str(ranks), "--log_dir", str(cwd / "log"),
               str(ROOT / "tests" / "dist" / "launched.py"), str(cwd), str(save_seconds)]  # fmt: skip
    env = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(cwd / "launcher.txt", "ab") as log:
        return subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=log, start_new_session=True)


def wait_for(condition, what: str, cwd: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}\n" + told(cwd)
        time.sleep(0.05)


def told(cwd: Path) -> str:
    files = [cwd / "launcher.txt", *sorted((cwd / "log").glob("workerlog.*"))]
    return "\n".join(path.read_text(errors="replace")[-3000:] for path in files)


def ranks_of(cwd: Path) -> list[int]:
    """The processes that work for a directory: ranks and their data workers, not the launcher."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue  # it has just ended
        if str(cwd).encode() in words and b"--nproc_per_node" not in words:
            found.append(int(entry.name))
    return found


def test_a_stop_waits_for_the_save_and_ends_with_75(tmp_path):
    launcher = launch("plsc.launch", tmp_path, save_seconds=4.0)  # longer than Paddle leaves to a second rank: 3 s
    wait_for((tmp_path / "step_3").exists, "no third step", tmp_path)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(SECONDS) == EXIT_STOPPED, told(tmp_path)
    path = latest(str(tmp_path / "run"))
    assert path is not None and open_checkpoint(path, OneRank())[1].step >= 3
    assert ranks_of(tmp_path) == [] and not (tmp_path / "run" / ".plsc_lock").exists()
    assert "SIGTERM: the ranks save and end" in told(tmp_path) and "Container failed" not in told(tmp_path)


@pytest.mark.parametrize(("code", "first"), [(0, 0), (3, 0), (1, 1)])
def test_without_a_stop_it_ends_as_the_ranks_do(tmp_path, code, first):
    """A failed rank's line is printed once: that of rank 0, or that of another rank where rank 0 has not failed."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nrank = int(os.environ['PADDLE_TRAINER_ID'])\nprint(f'refused by {rank}', flush=True)\n"
        f"raise SystemExit({code} if rank else {first})\n"
    )
    command = [sys.executable, "-m", "plsc.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log"), script]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    shown = [done.stdout.count(f"refused by {rank}") for rank in (0, 1)]
    assert shown == [1, 1 if code and not first else 0], done.stdout


@pytest.mark.parametrize("module", ["paddle.distributed.launch", "plsc.launch"])
def test_ranks_end_with_a_killed_launcher_and_the_same_command_goes_on(tmp_path, module):
    launcher = launch(module, tmp_path, save_seconds=0.0)
    wait_for((tmp_path / "step_2").exists, "no second step", tmp_path)
    assert len(ranks_of(tmp_path)) >= 2
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not ranks_of(tmp_path), "the ranks go on", tmp_path)
    if module == "plsc.launch":
        return
    (tmp_path / "step_2").unlink()
    again = launch(module, tmp_path, save_seconds=0.0)
    wait_for((tmp_path / "step_2").exists, "the restarted run makes no step", tmp_path)
    again.send_signal(signal.SIGTERM)  # Paddle's launcher passes it on three times, which is one request to stop
    assert again.wait(SECONDS) == signal.SIGTERM
    wait_for(lambda: not ranks_of(tmp_path), "the ranks go on", tmp_path)
    assert latest(str(tmp_path / "run")) is not None and "stopped: saved after step" in told(tmp_path)


RANK = """
import os, signal, sys, time
def hear(number, frame):
    time.sleep(0.5)  # what it takes to save
    open("heard", "w").write(signal.Signals(number).name)
    sys.exit(75)
signal.signal(signal.SIGTERM, hear), signal.signal(signal.SIGINT, hear)
open("ready", "w").write(str(os.getpid()))
while True:
    time.sleep(0.05)
"""


def ignores(process: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_nobody_reads_and_nohup(tmp_path):
    """`nohup python -m plsc.launch ... | tee` whose tee has gone by Ctrl-C: request and status arrive."""
    (tmp_path / "rank.py").write_text(RANK), (tmp_path / "launcher.txt").touch()
    command = [sys.executable, "-m", "plsc.launch", "--nproc_per_node", "1", "--log_dir", "log", "rank.py"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")} | {"PYTHONPATH": str(ROOT)}
    reader, writer = os.pipe()
    launcher = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=writer, stderr=writer, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    try:
        os.close(writer)
        ready = tmp_path / "ready"
        wait_for(lambda: ready.exists() and ready.read_text(), "no rank", tmp_path)
        os.close(reader)
        for process in (launcher.pid, int(ready.read_text())):
            assert ignores(process, signal.SIGHUP) and not ignores(process, signal.SIGINT)
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(SECONDS) == EXIT_STOPPED and (tmp_path / "heard").read_text() == "SIGINT"
    finally:
        launcher.kill()


class Process:
    """A rank: what it ends with, once it was looked at so often."""

    def __init__(self, code: int | None, looks: int = 0):
        self.pid, self._code, self._looks, self.told = id(self), code, looks, []

    @property
    def returncode(self) -> int | None:
        return self._code if self._looks <= 0 else None

    def poll(self) -> int | None:
        self._looks -= 1
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.told.append(number)


@pytest.fixture
def stop_of(monkeypatch):
    monkeypatch.setattr(plsc.launch.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(plsc.launch, "_POLL_SECONDS", 0.0)

    def make(*processes: Process) -> plsc.launch.StopForwarder:
        containers = [
            types.SimpleNamespace(_proc=types.SimpleNamespace(_proc=process), env={}, errfile="workerlog.1")
            for process in processes
        ]
        pod = types.SimpleNamespace(containers=containers, watch=lambda: "failed", logs=lambda: None)
        return plsc.launch.StopForwarder(types.SimpleNamespace(pod=pod))

    return make


@pytest.mark.parametrize(("codes", "status"), [
    ((0, 0), 0), ((75, 0), 75), ((65, 65), 65), ((-15, 65), 65), ((-9, 1), 1), ((0, -15), 143), ((75, 3), 3),
])  # fmt: skip
def test_the_status_is_that_of_the_cause(stop_of, codes, status):
    assert stop_of(*map(Process, codes)).status() == status


def test_a_failed_rank_waits_for_the_first_one_to_say_why(stop_of, monkeypatch):
    slow = Process(1, looks=5)
    assert stop_of(slow, Process(1)).watch() == "failed" and slow.returncode == 1
    monkeypatch.setattr(plsc.launch, "_REASON_SECONDS", 0.1)
    assert stop_of(Process(None), Process(1)).watch() == "failed"  # but not for ever


@pytest.mark.parametrize("own, told", [("10.0.0.1", []), ("10.0.0.2", [1])])
def test_other_machines_are_told_which_rank_has_ended(stop_of, monkeypatch, own, told):
    """Not those of one machine: their launcher ends them."""
    said = []
    monkeypatch.setattr(plsc.launch, "report_ended", lambda env, reason: said.append((env.rank, reason)))
    stop = stop_of(Process(None), Process(-9))
    endpoints = ["10.0.0.1:70", f"{own}:71"]
    stop._pod.containers[1].env.update(
        PADDLE_TRAINER_ID="1", PADDLE_TRAINERS_NUM="2", PADDLE_TRAINER_ENDPOINTS=",".join(endpoints),
        PADDLE_CURRENT_ENDPOINT=endpoints[1],
    )  # fmt: skip
    monkeypatch.setattr(plsc.launch, "_REASON_SECONDS", 0.0)
    stop.watch(), stop.watch()
    assert [rank for rank, _ in said] == told
    assert all(re.search("ended by signal 9, .*; see workerlog.1 on ", reason) for _, reason in said)


@pytest.mark.parametrize("code", [65, 75])
def test_ranks_that_end_one_after_the_other_are_waited_for(stop_of, code):
    """Paddle's kills the rest where one has ended with another status than 0."""
    slow = Process(code, looks=5)
    with pytest.raises(SystemExit) as ended:
        stop_of(Process(code), slow).watch()
    assert ended.value.code == code and slow.returncode == code and slow.told == []
    assert stop_of(Process(1), Process(None)).watch() == "failed"  # an error: as Paddle does it


def test_a_signal_that_is_sent_three_times_is_one_request(stop_of):
    rank = Process(None)
    stop = stop_of(rank)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        stop._handle_signal(number, None)
    assert rank.told == [signal.SIGTERM]
    stop._asked_at -= 2.0
    stop._handle_signal(signal.SIGTERM, None)
    assert rank.told == [signal.SIGTERM] * 2
    stop._handle_signal(signal.SIGINT, None)  # a hand on the keyboard means it
    assert rank.told == [signal.SIGTERM] * 2 + [signal.SIGKILL]
