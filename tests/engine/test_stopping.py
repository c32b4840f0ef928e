"""Requests to stop: the first is noted, a second one ends the process, and Paddle's launcher repeats itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest

from plsc.engine.run import stopping
from plsc.engine.run.stopping import StopRequest


def status_of(work) -> int:
    """How a fork ends that calls ``work``: its code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def send(*signals: int) -> bool:
    for number in signals:
        os.kill(os.getpid(), number)
    return True


@pytest.mark.parametrize("signals, ended_by", [
    ([signal.SIGINT], 0), ([signal.SIGTERM], 0), ([signal.SIGINT, signal.SIGINT], -signal.SIGINT),
    ([signal.SIGTERM, signal.SIGINT], -signal.SIGINT),
    ([signal.SIGTERM] * 3, 0),  # as Paddle's launcher sends it
])  # fmt: skip
def test_the_first_is_noted_and_the_second_ends(signals, ended_by):
    def work():
        with StopRequest() as request:
            assert not request.requested and send(*signals) and request.requested

    assert status_of(work) == ended_by


def test_a_second_sigterm_ends_when_it_is_not_the_repeated_first(monkeypatch):
    def work():
        with StopRequest() as request:
            send(signal.SIGTERM)
            monkeypatch.setattr(stopping, "REPEATS_SECONDS", -1.0)
            send(signal.SIGTERM)
            assert request.requested

    assert status_of(work) == -signal.SIGTERM


def test_a_repeated_sigterm_ends_no_run_that_has_saved_within_a_moment():
    """It would find no handler any more; the other ranks would take this one for dead and end with 1."""

    def work():
        begun = time.monotonic()
        with StopRequest():
            send(signal.SIGTERM)
            timer = threading.Timer(0.3, send, [signal.SIGTERM])
            timer.start()
        timer.join()
        assert 0.9 < time.monotonic() - begun < 5.0
        with StopRequest():
            begun = time.monotonic()
        assert time.monotonic() - begun < 0.5  # nobody asked

    assert status_of(work) == 0


def test_what_was_there_before_is_back_after():
    def work():
        heard = []
        for number in StopRequest.SIGNALS:
            signal.signal(number, lambda number, frame: heard.append(number))
        with StopRequest():
            pass
        assert send(*StopRequest.SIGNALS) and heard == list(StopRequest.SIGNALS)

    assert status_of(work) == 0


def test_who_is_not_to_hear_ctrl_c_does_not():
    def work():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a shell gives to `command &` in a script
        with StopRequest() as request:
            assert send(signal.SIGINT) and not request.requested

    assert status_of(work) == 0


@pytest.mark.parametrize("inside", [True, False])
def test_ctrl_c_before_training_is_one_line(tmp_path, inside):
    body = "raise KeyboardInterrupt" if not inside else (
        "exec(compile('def f(): raise KeyboardInterrupt', 'x', 'exec'), {'__name__': 'plsc.data.x'}, names := {})\n"
        "names['f']()"
    )  # fmt: skip
    (tmp_path / "script.py").write_text(f"from plsc import Entry\nEntry()\n{body}\n")
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    assert ("Traceback" in done.stderr) != inside
    assert not inside or done.stderr == "plsc: stopped by Ctrl-C; what was saved before is intact\n"
