"""What a launcher says in the place of a rank that has ended before it was connected: else the others wait for it."""

from __future__ import annotations

import time

from plsc.parallel.environment import Environment
from plsc.parallel.frames import encode
from plsc.parallel.hello import ENDED, hello
from plsc.parallel.hub import Hub
from plsc.parallel.spoke import connect

TELL_SECONDS = 10.0
_MOST_CHARACTERS = 300  # of a reason: a stranger's message may be short only
_PAUSE_SECONDS = 0.5


def report_ended(env: Environment, reason: str, seconds: float = TELL_SECONDS) -> bool:
    """Tell rank 0 that the process of the rank of ``env`` has ended, and why; False if it was not heard in time.

    If rank 0 knows the rank, it knows of its end too, and nothing changes. Where it is rank 0 that has ended, those are
    told that try to reach it.
    """
    deadline = time.monotonic() + seconds
    if env.rank == 0:
        hub = Hub(env)
        hub.fail(reason[:_MOST_CHARACTERS])
        while hub.untold() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not hub.untold()
    message = b"".join(encode({**hello(env), ENDED: reason[:_MOST_CHARACTERS]}))
    while True:
        try:
            with connect(env.endpoints[0]) as made:
                made.sendall(message)
                if made.recv(1):
                    return True
        except OSError:
            pass  # it has ended as well, or starts later
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
