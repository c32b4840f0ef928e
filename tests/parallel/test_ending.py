"""One process has one reason to end, whoever is first."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from plsc.parallel import ending as ending_module
from plsc.parallel.ending import Ending


@pytest.mark.parametrize("first", ["the report", "an error of its own"])
def test_one_line_where_the_report_and_an_error_of_its_own_come_together(monkeypatch, tmp_path, first):
    monkeypatch.setattr(ending_module, "GRACE_SECONDS", 0.0 if first == "the report" else 60.0)
    child = os.fork()
    if child == 0:
        sys.stderr = open(tmp_path / "said", "w")
        ending, saying = Ending(0), threading.Event()
        ending.on_stopped = lambda text: (saying.set(), time.sleep(0.3))
        listener = threading.Thread(target=ending.stop, args=("rank 1: x", lambda: None))
        listener.start()
        if first == "the report":
            saying.wait(30)
        ending.by_itself()
        print("plsc: error: [rank 0] y", file=sys.stderr, flush=True)
        listener.join(30)
        os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = (tmp_path / "said").read_text().splitlines()
    if first == "the report":
        assert (code, lines) == (1, ["plsc: error: [rank 0] stopped because of rank 1: x"])
    else:
        assert (code, lines) == (7, ["plsc: error: [rank 0] y"])


def test_a_disk_that_cannot_be_written_does_not_keep_the_process(monkeypatch):
    monkeypatch.setattr(ending_module, "GRACE_SECONDS", 0.0)
    child = os.fork()
    if child == 0:
        ending = Ending(0)

        def on_stopped(text: str) -> None:
            raise OSError("No space left on device")

        ending.on_stopped = on_stopped
        threading.Thread(target=ending.stop, args=("rank 1: x", lambda: None)).start()
        time.sleep(60)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
