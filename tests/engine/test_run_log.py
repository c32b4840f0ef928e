"""What a run tells: a progress line on a terminal only, event files on request, a clear line where a package lacks."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import pty
import resource
import select
import signal
import sys
import time
import types

import pytest

from plsc.engine.run import scalars
from plsc.engine.run.handlers import LogFileHandler
from plsc.engine.run.run_log import ProgressLine, clock
from plsc.engine.run.scalars import Scalars
from plsc.errors import ConfigError


def read_until_blank(master: int) -> str:
    """What a terminal got, up to the blanks that clear the line: the kernel may hand it on in pieces."""
    text, deadline = "", time.monotonic() + 10.0
    while not text.endswith(" \r") and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            text += os.read(master, 4096).decode()
    return text


def test_the_progress_line_is_drawn_over_itself_on_a_terminal(monkeypatch):
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        line = ProgressLine(terminal.isatty())
        line.draw("loss 1.5", 1, 4)
        line.draw("too soon after the first", 2, 4)
        line.draw("done", 4, 4)
        line.clear()
        text = read_until_blank(master)
    assert "\r[######..................] 1/4 loss 1.5" in text
    assert "[########################] 4/4 done" in text and "too soon" not in text
    assert text.endswith("\r") and "\n" not in text


def test_no_progress_line_in_a_file(capsys):
    line = ProgressLine(False)
    line.draw("loss", 1, 2)
    line.clear()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seconds, text", [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (-3, "0:00:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


class Writer:
    """Stands in for visualdl.LogWriter and tensorboardX.SummaryWriter, which share what is used of them."""

    def __init__(self, *args, **options):
        self.where, self.points, self.closed = (args or (options["logdir"],))[0], [], False

    def add_scalar(self, name, value, step):
        self.points.append((name, value, step))

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    "kind, package, name",
    [("visualdl", "visualdl", "LogWriter"), ("tensorboard", "tensorboardX", "SummaryWriter")],
)
def test_numbers_become_curves(tmp_path, monkeypatch, kind, package, name):
    module = types.ModuleType(package)
    setattr(module, name, Writer)
    monkeypatch.setitem(sys.modules, package, module)
    written = Scalars(str(tmp_path), kind)
    written.add(3, {"loss": 1.5, "lr": 0.1})
    written.add(3, {"test": "lfw", "accuracy": 0.9, "roc": {"fpr": [0.0]}})
    written.close()
    writer = written._writer
    assert writer.where == str(tmp_path / "scalars") and writer.closed
    assert writer.points == [("train/loss", 1.5, 3), ("train/lr", 0.1, 3), ("test/lfw/accuracy", 0.9, 3)]
    assert len((tmp_path / "scalars.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["visualdl", "tensorboard"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, scalars.PACKAGES[kind], None)
    with pytest.raises(ConfigError, match=f"pip install {scalars.PACKAGES[kind]}"):
        Scalars(str(tmp_path), kind)


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_on_a_full_disk_is_told_once_and_its_end_hides_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging.FileHandler, "_open", lambda self: FullDisk())
    handler = LogFileHandler(str(tmp_path / "rank_00000.log"))
    for text in ("one", "two"):
        handler.handle(logging.LogRecord("plsc", logging.INFO, "", 0, text, None, None))
    handler.close()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "rank_00000.log cannot be written: No space left on device" in told


def test_scalars_on_a_full_disk_lose_whole_lines_and_go_on(tmp_path, capsys):
    path, limits = tmp_path / "scalars.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    written = Scalars(str(tmp_path), "none")
    written.add(1, {"loss": 1.5})
    size = path.stat().st_size
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a limit of the file's size stands in for the disk's
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 7, limits[1]))
        written.add(2, {"loss": 2.5})  # seven bytes of it fit
        written.add(3, {"loss": 2.5})
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        written.add(4, {"loss": 3.5})
        written.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 4]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "scalars.jsonl cannot be written: " in told
