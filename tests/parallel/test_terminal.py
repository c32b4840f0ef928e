"""Standard streams that are closed, gone or None end nothing, and no file takes their place."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plsc.engine.run.handlers import TerminalHandler
from plsc.engine.run.run_log import ProgressLine
from plsc.terminal import is_terminal, print_stderr

ROOT = Path(__file__).resolve().parents[2]


class Broken(io.StringIO):
    """A pipe that nobody reads."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def isatty(self):
        raise ValueError("I/O operation on closed file")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [lambda: None, Broken, closed, object])
def test_a_stream_that_cannot_be_used(monkeypatch, make):
    import logging

    monkeypatch.setattr(sys, "stderr", make())
    monkeypatch.setattr(sys, "stdout", make())
    assert not is_terminal(sys.stderr)
    print_stderr("nobody reads this")
    line = ProgressLine(True)
    line.draw("loss", 1, 2)
    line.clear()
    handler = TerminalHandler(sys.stdout)
    for _ in range(2):
        handler.handle(logging.LogRecord("plsc", logging.INFO, "", 0, "nobody reads this", None, None))
    handler.close()


def test_lines_reach_who_listens(capsys):
    print_stderr("one")
    assert capsys.readouterr().err == "one\n"


@pytest.mark.parametrize("arguments", [["list", "losses", "--json"], ["convert-config", "net.py", "--ranks", "2"]])
def test_a_result_that_cannot_be_written_is_an_error(tmp_path, arguments):
    """`plsc convert-config net.py --ranks 8 > x.yaml` on a full disk: half a file, which must not pass for a whole."""
    values = {"network": "r50", "num_classes": 9, "batch_size": 4, "num_epoch": 2, "margin_list": (1.0, 0.5, 0.0),
              "lr": 0.1, "rec": "data", "num_image": 90, "warmup_epoch": 0, "val_targets": []}  # fmt: skip
    (tmp_path / "net.py").write_text("".join(f"config.{name} = {value!r}\n" for name, value in values.items()))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "plsc", *arguments], cwd=tmp_path, env=environment, stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1 and "stdout cannot be written: No space left on device" in done.stderr


RUN = """
import os, sys
from plsc import Entry
from tests import using_kit as kit
run_dir = sys.argv[1]
assert sys.stdout is None and sys.stderr is None
entry = Entry(config=kit.settings(model_save_dir=run_dir, train_steps=1))
opened = os.open(run_dir + " first file", os.O_CREAT | os.O_WRONLY)
assert opened > 2
os.write(2, b"what C++ says to stderr")
entry.train()
entry.set_checkpoint_dir(run_dir)
entry.convert_for_prediction()
"""


def test_a_whole_run_without_streams(tmp_path):
    """As `>&- 2>&- <&-` starts it: trains, saves and exports, and a file that is opened is none of 0, 1 and 2."""
    command = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", RUN, str(tmp_path / "run")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300)
    log = tmp_path / "run" / "logs" / "rank_00000.log"
    assert done.returncode == 0, log.read_text() if log.exists() else "no log"
    assert json.loads((tmp_path / "run" / "inference" / "plsc.json").read_text())["step"] == 1
    assert "step 1/1" in log.read_text() and (tmp_path / "run first file").read_bytes() == b""


PIPE = """
import sys
from plsc import Entry
from plsc.engine.run.run_log import RunLog
from plsc.parallel.environment import Environment
from plsc.parallel.group import open_group
log = RunLog(sys.argv[1], Environment(), open_group(Environment()))
for number in range(200):
    log.info(f"line {number} " + "x" * 1000)
log.close()
print("the end")
"""


def test_nobody_reads_on(tmp_path):
    """`| head -1`: no traces, the log is whole, and the process ends with 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PIPE, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert "line 0" in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0 and "rror" not in errors and "Traceback" not in errors
    assert len((tmp_path / "logs" / "rank_00000.log").read_text().splitlines()) == 200
