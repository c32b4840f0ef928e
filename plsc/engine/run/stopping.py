"""SIGTERM and Ctrl-C stop a run: it saves after the current step, on all ranks alike, and ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from plsc.terminal import write_stderr

# EX_TEMPFAIL of sysexits.h, "try again later": the run was stopped and saved, and continues when started again.
EXIT_STOPPED = 75
# Paddle's launcher sends SIGTERM three times in 0.4 s: within this time they are one request.
REPEATS_SECONDS = 1.0
# How long a run that is to stop waits for the data of its last step: Paddle's launcher kills it after 30 s.
DATA_SECONDS = 20.0


class StopRequest:
    """Handles SIGTERM and SIGINT (Ctrl-C) as a context manager; ``requested`` is True after one of them.

    A second signal ends the process at once; earlier checkpoints stay. Signals are handled in the main thread only;
    in other threads this does nothing. One rank is enough: the request is sent with the gradients of its next step.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0
        self._previous_handlers: dict[int, object] = {}
        self._in_main_thread = threading.current_thread() is threading.main_thread()

    def seconds(self) -> float:
        """Seconds since the first signal; 0 without one."""
        return time.monotonic() - self._since if self.requested else 0.0

    def __enter__(self) -> StopRequest:
        if self._in_main_thread:
            for number in self.SIGNALS:
                # a background job of a shell script ignores Ctrl-C, and continues to
                if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous_handlers[number] = signal.signal(number, self._handle_signal)
        return self

    def __exit__(self, *_) -> None:
        if self.requested:  # the same request once more would kill this rank, and with it all that have saved
            time.sleep(max(0.0, REPEATS_SECONDS - self.seconds()))
        for number, before in self._previous_handlers.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self._since, self.requested = time.monotonic(), True
            if number == signal.SIGINT:
                write_stderr("plsc: Ctrl-C: the run saves after this step and ends; another one ends it unsaved")
        elif number == signal.SIGINT or time.monotonic() - self._since > REPEATS_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class DataTimeout:
    """Called with the seconds waited for data so far: the reason to stop waiting, or None to continue."""

    def __init__(self, request: StopRequest, stall_timeout: float, world_size: int):
        # with several ranks the others name the late one first; this is for the case that all are stuck
        self._request, self._timeout = request, stall_timeout
        self._limit = stall_timeout if world_size == 1 else 2 * stall_timeout

    def __call__(self, waited: float) -> str | None:
        if min(waited, self._request.seconds()) >= DATA_SECONDS:
            return f"the run was to stop, waited {DATA_SECONDS:g} s for it and ends unsaved; older checkpoints stay"
        if self._timeout and waited >= self._limit:
            return f"no data for {waited:g} s (stall_timeout={self._timeout:g}; 0 waits forever)"
        return None
