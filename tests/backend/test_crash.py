"""A crash in Paddle ends the process at once, and says where Python was."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

BEGIN = """
import ctypes, os, signal, threading
from plsc.backend.paddle_version import require_paddle

"""
LOCKED = BEGIN + """
require_paddle()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
first, after = c.malloc(3000), c.malloc(3000)
c.free(first)
c.free(first)  # glibc aborts with the heap locked: Paddle's own handler would wait for it
"""
IN_A_THREAD = BEGIN + """
require_paddle()
threading.Thread(target=ctypes.string_at, args=[8]).start()
"""
TERMINATED = BEGIN + """
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
require_paddle()
os.kill(os.getpid(), signal.SIGTERM)
"""
IN_ANOTHER_THREAD = BEGIN + """
import paddle
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
thread = threading.Thread(target=require_paddle)  # as a service that opens a Predictor there
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("program, code", [(LOCKED, signal.SIGABRT), (IN_A_THREAD, signal.SIGSEGV)])
def test_a_crash_ends_the_process_with_stacks(program, code):
    done = run(program)
    assert done.returncode == -code, done.stderr
    assert "Current thread" in done.stderr or "Thread 0x" in done.stderr


@pytest.mark.parametrize("program", [TERMINATED, IN_ANOTHER_THREAD])
def test_a_handler_of_sigterm_stays(program):
    assert run(program).returncode == 3
