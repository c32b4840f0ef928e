"""Whatever a user gets wrong: every rank ends, none hangs, each with one line that says what and how to fix it.

The cases are in bad_input_cases.py. Each runs the user's script on two real ranks (three where it needs them).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plsc.backend import static
from tests.dist import ranks
from tests.dist.bad_input_cases import ALL, CASES, FINE, ONE_RANK, folder
from tests.dist.bad_input_parts import make_pictures

LIMIT_SECONDS = 100  # for a case; the longest take 5 on an idle machine, and a hang would take 120, or last
TRACES = ("Traceback (most recent call last)", "C++ Traceback", "Error Message Summary", "terminate called")
KILLED = {"killed 0": 0, "killed 1": 1, "killed and told": 1, "killed in a wait": 1, "killed in Gloo": 1,
          "killed early": 1, "0 not there": 0, "1 not there": 1}  # fmt: skip
# What is saved before the end is meant to stay: these train for long, past the end of an epoch.
SAVES = ("killed 0", "killed 1", "picture cut")
# What is wrong in settings and lists is found before Paddle sees anything of it: with Paddle 2.6 three of those.
NAMES = [*CASES] if static.is_pir() else [
    "picture missing", "list on one", "no GPU", "save on one", "embedding", "model raises", "model misfits",
    "data raises", "disk full", "not finite", "another Paddle",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bad_input")
    make_pictures(root / "pictures")
    return root


@pytest.fixture(scope="module")
def outcomes(root) -> dict:
    """Every case is run, one after the other, by forks of one process that has Paddle loaded."""
    shared = shared_memory()
    command = [sys.executable, "-m", "tests.dist.bad_input_cases", str(root), "--all", *NAMES, *ONE_RANK, *FINE]
    run = subprocess.run(command, cwd=ranks.ROOT, capture_output=True, text=True, timeout=900, env=variables())
    assert run.returncode == 0, run.stderr[-3000:]
    outcomes = json.loads((root / "outcomes.json").read_text())
    outcomes["/dev/shm"] = sorted(shared_memory() - shared)
    outcomes["processes"] = processes_with(str(root))
    return outcomes


def variables() -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    return {**plain, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ranks.ROOT)}


def shared_memory() -> set[str]:
    """Names that a run could have left: shared memory and semaphores of this machine, without those of others."""
    return {name for name in os.listdir("/dev/shm") if "plsc" in name or "paddle" in name or name.startswith("sem.mp")}


def processes_with(text: str) -> list[str]:
    """The command lines of running processes that contain ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has just ended
                continue
            found += [line] if text in line else []
    return found


def said(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("plsc: error: ")]


def leftovers(directory: Path) -> list[str]:
    """Checkpoints and unfinished files of a run. Logs may stay: they say why it failed."""
    kept = ("logs", "checkpoints", "scalars.jsonl", ".plsc_lock")  # the last one where rank 0 was killed
    return [str(p.relative_to(directory)) for p in directory.rglob("*") if p.name not in kept and p.suffix != ".log"]


@pytest.mark.parametrize("name", [*NAMES, *ONE_RANK])
def test_one_clear_line_on_every_rank(outcomes, root, name):
    outcome, (_, expected) = outcomes[name], ALL[name]
    assert outcome["seconds"] < LIMIT_SECONDS
    for rank, code in enumerate(outcome["codes"]):
        log = (root / "logs" / folder(name) / f"rank{rank}.log").read_text(errors="replace")
        if rank == KILLED.get(name):
            assert code == -signal.SIGKILL
            continue
        assert code == 1, f"rank {rank}: exit code {code}\n{log[-3000:]}"
        assert not [trace for trace in TRACES if trace in log], log[-3000:]
        (line,) = said(log)
        assert line.startswith(f"plsc: error: [rank {rank}] ")
        assert [part for part in expected if part not in line] == [], line
    if name not in SAVES:
        assert leftovers(root / "out" / folder(name)) == []


@pytest.mark.parametrize("name", [name for name in list(CASES)[:9] if name in NAMES])
def test_nothing_is_made_before_the_list_is_checked(outcomes, root, name):
    assert (root / "out" / folder(name)).exists() == (name == "picture too wide")  # found when it is read


@pytest.mark.parametrize("name", FINE)
def test_what_is_right_trains(outcomes, root, name):
    logs = [(root / "logs" / folder(name) / f"rank{rank}.log").read_text() for rank in (0, 1)]
    assert outcomes[name]["codes"] == [0, 0], "\n".join(log[-3000:] for log in logs)
    steps = 4 if name == "odd pictures" else 2
    assert f"train: step {steps}/{steps}, epoch " in logs[0]
    saved = root / "out" / folder(name) / "checkpoints" / f"step_{steps:08d}" / "manifest.json"
    assert json.loads(saved.read_text())["step"] == steps


def test_all_ranks_stop_at_the_same_step(outcomes, root):
    """The sample that is too large comes in the step that the line names, and not before."""
    lines = [said((root / "logs" / "not_finite" / f"rank{rank}.log").read_text())[0] for rank in (0, 1)]
    assert lines[0].split("] ")[1] == lines[1].split("] ")[1]
    log = (root / "out" / "not_finite" / "logs" / "rank_00000.log").read_text()
    assert "train: step 1/2, epoch 0, loss " in log and "step 2/2" not in log


def test_the_log_file_says_why_a_rank_ended(outcomes, root):
    for rank in (0, 1):
        log = (root / "out" / "picture_cut" / "logs" / f"rank_{rank:05d}.log").read_text()
        assert "ERROR" in log and "cut.jpg" in log
    assert "was killed or crashed" in (root / "out" / "killed_in_a_wait" / "logs" / "rank_00000.log").read_text()


def test_nothing_stays_behind(outcomes):
    assert outcomes["processes"] == []
    assert outcomes["/dev/shm"] == []


@pytest.mark.parametrize("name", ["label negative", "killed 1"])
def test_under_launch(root, tmp_path, name):
    (tmp_path / "pictures").symlink_to(root / "pictures")
    script = ranks.ROOT / "tests" / "dist" / "bad_input_cases.py"
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "log"]
    run = subprocess.run(
        [*command, str(script), str(tmp_path), name],
        cwd=tmp_path, capture_output=True, text=True, timeout=2 * LIMIT_SECONDS, env=variables(),
    )  # fmt: skip
    assert run.returncode != 0
    for rank in (0, 1):
        log = (tmp_path / "log" / f"workerlog.{rank}").read_text(errors="replace")
        assert not [trace for trace in TRACES if trace in log], log[-3000:]
        lines = said(log)
        # Where one was killed the launcher may end the other before it has heard of that; without a launcher it hears.
        expected = [1] if name not in KILLED else [0] if rank == KILLED[name] else [0, 1]
        assert len(lines) in expected, log[-3000:]
        assert [part for part in ALL[name][1] for line in lines if part not in line] == []
    assert processes_with(str(tmp_path)) == []
