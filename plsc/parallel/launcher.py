"""Ends this rank when the launcher that started it has ended, for whatever reason.

Ranks that continued alone would keep their cores, their memory and the lock of their run directory, while the user
believes that the run has ended and starts it again.
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

# Set for every rank by paddle.distributed.launch of both versions, and, with its process id, by plsc.launch.
LAUNCHED = "PADDLE_RANK_IN_NODE"
LAUNCHER = "PLSC_LAUNCHER"
PADDLE_GRACE_SECONDS = 30  # between SIGTERM to Paddle's launcher and SIGKILL to the ranks
_POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent ends


def grace_seconds(environ: Mapping[str, str] | None = None) -> float | None:
    """How long a rank has to save when its launcher is asked to stop; None: no limit."""
    environ = os.environ if environ is None else environ
    return PADDLE_GRACE_SECONDS if environ.get(LAUNCHED) and not environ.get(LAUNCHER) else None


def mark_as_launcher() -> None:
    """Record the process id of this launcher for the ranks that it starts; for plsc.launch."""
    os.environ[LAUNCHER] = str(os.getpid())


def is_rank(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this process was started by a launcher."""
    return bool((os.environ if environ is None else environ).get(LAUNCHED))


def end_with_launcher(env: Environment) -> None:
    """Make this process end when the one that started it as a rank ends; a run of one process is not affected.

    Raises LaunchError where the launcher has ended already.
    """
    if os.environ.get(LAUNCHED):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if _has_ended(os.getppid()):  # before prctl
            raise LaunchError("the launcher that started this rank has ended; restart all ranks")
    elif env.world_size > 1 and not _is_detached():
        _watch(os.getppid())


def _is_detached() -> bool:
    """Whether this rank was started by hand with nohup or setsid, or its parent is gone already."""
    nohup, setsid = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, os.getsid(0) == os.getpid()
    return nohup or setsid or os.getppid() == 1


def _has_ended(parent: int) -> bool:
    launcher = os.environ.get(LAUNCHER, "")
    if launcher.isdecimal():
        return not os.path.exists(f"/proc/{launcher}")  # the parent may be a user's script in between
    # In a container the launcher may be process 1; otherwise process 1 adopts the children of ended processes.
    return parent == 1 and not _same_program(1)


def _same_program(process: int) -> bool:
    """Whether ``process`` runs the same Python: Paddle's launcher starts ranks by its own interpreter."""
    try:
        return os.path.samefile(f"/proc/{process}/exe", "/proc/self/exe")
    except OSError:
        return False


@functools.cache
def _watch(parent: int) -> None:
    """Poll in a thread. prctl would fire when the thread that started this rank ends, though its process is alive."""

    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        text = f"plsc: error: stopped: process {parent}, which started this rank, has ended"
        print_stderr(text)
        os._exit(1)

    threading.Thread(target=poll, daemon=True, name="plsc-launcher").start()
