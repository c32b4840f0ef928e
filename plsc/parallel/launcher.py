"""The launcher that started this rank: when it is gone this rank ends, too, however the launcher went.

Ranks that went on alone would hold their cores, their memory and the directory of their run, while whoever started
them takes the run for ended and starts it again.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import threading
import time
from collections.abc import Mapping

from plsc.errors import LaunchError
from plsc.parallel.environment import Environment
from plsc.terminal import print_stderr

# What paddle.distributed.launch, both versions, sets for every rank, and what plsc.launch adds: its process.
LAUNCHED = "PADDLE_RANK_IN_NODE"
LAUNCHER = "PLSC_LAUNCHER"
PADDLE_GRACE_SECONDS = 30  # from the SIGTERM to Paddle's launcher until it kills the ranks
_LOOK_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal a process gets when its parent is gone


def grace_seconds(environ: Mapping[str, str] | None = None) -> float | None:
    """How long a rank has to save when its launcher is asked to stop; None where nothing limits it."""
    environ = os.environ if environ is None else environ
    return PADDLE_GRACE_SECONDS if environ.get(LAUNCHED) and not environ.get(LAUNCHER) else None


def mark_as_launcher() -> None:
    """Tell the ranks that this process will start who started them; for plsc.launch."""
    os.environ[LAUNCHER] = str(os.getpid())


def is_rank(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this process was started by a launcher."""
    return bool((os.environ if environ is None else environ).get(LAUNCHED))


def end_with_launcher(env: Environment) -> None:
    """See to it that this process ends when the one that started it as a rank does; a process alone goes on.

    Raises LaunchError where the launcher has ended already.
    """
    if os.environ.get(LAUNCHED):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if _has_ended(os.getppid()):  # before prctl
            raise LaunchError("the launcher that started this rank has ended; start all ranks anew")
    elif env.world_size > 1 and not _is_to_stay():
        _watch(os.getppid())


def _is_to_stay() -> bool:
    """Whether whoever started this rank by hand means to leave: it used nohup or setsid, or is gone by now."""
    nohup, setsid = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, os.getsid(0) == os.getpid()
    return nohup or setsid or os.getppid() == 1


def _has_ended(parent: int) -> bool:
    told = os.environ.get(LAUNCHER, "")
    if told.isdecimal():
        return not os.path.exists(f"/proc/{told}")  # the parent may be a script of the user's in between
    # In a container the launcher may be process 1, which elsewhere takes in the children of the dead.
    return parent == 1 and not _same_program(1)


def _same_program(process: int) -> bool:
    """Paddle's launcher starts ranks by the Python that it runs in."""
    try:
        return os.path.samefile(f"/proc/{process}/exe", "/proc/self/exe")
    except OSError:
        return False


@functools.cache
def _watch(parent: int) -> None:
    """Not prctl: it would fire when the thread that started this rank ends, though the process of that thread lives."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        text = f"plsc: error: stopped: process {parent}, which started this rank, has ended"
        print_stderr(text)
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="plsc-launcher").start()
