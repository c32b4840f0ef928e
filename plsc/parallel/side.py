"""A second line between the ranks, for a thread that talks while the program trains."""

from __future__ import annotations

import json
import time
from typing import Any

from plsc.backend import rings
from plsc.errors import LaunchError, PeerError, TrainingError
from plsc.parallel.environment import Environment
from plsc.parallel.group import CONNECT_SECONDS, WAIT_SECONDS, first_line
from plsc.parallel.nodelay import send_at_once


class SideGroup:
    """What a checkpoint needs of a group (plsc.checkpoint.together.Group), by a connection and keys of its own.

    ``Group`` counts its calls and is not made for two threads; this one never meets its calls. ``name`` is that of
    its keys: two of the same name in one process would read each other's mail. Make it on every rank after ``Group``,
    whose store it uses. Raises LaunchError where the store cannot be reached.
    """

    def __init__(self, env: Environment, name: str):
        self.rank, self.world_size = env.rank, env.world_size
        self._name, self._calls, self._store = name, 0, None
        if env.world_size == 1:
            return
        host, port = env.endpoints[0].rsplit(":", 1)
        try:
            self._store = rings.open_store(host, int(port), False, env.world_size, CONNECT_SECONDS)
            send_at_once(int(port))
        except Exception as error:
            raise LaunchError(
                f"rank {env.rank}: cannot reach rank 0 at {env.endpoints[0]}: {first_line(error)}; "
                "check that all ranks run and that the port is open"
            ) from None

    def all_gather(self, value: Any) -> list[Any]:
        """[the JSON value of each rank, in order]."""
        text = json.dumps(value)
        if self._store is None:
            return [json.loads(text)]
        self._calls += 1
        prefix = f"{self._name}/{self._calls}/"
        deadline = time.monotonic() + WAIT_SECONDS
        try:
            self._store.set(prefix + str(self.rank), text.encode())
            self._store.add(prefix, 1)
            while self._store.add(prefix, 0) < self.world_size:
                if time.monotonic() > deadline:
                    raise TrainingError(f"waited {WAIT_SECONDS} seconds for another rank in {self._name}")
                time.sleep(0.02)
            return [json.loads(bytes(self._store.get(prefix + str(rank)))) for rank in range(self.world_size)]
        except (RuntimeError, OSError, ValueError) as error:  # Paddle 2.6: ValueError where the store is gone
            raise PeerError(f"another rank has gone: {first_line(error)}") from None

    def barrier(self, name: str = "barrier") -> None:
        """Return when every rank has arrived. Raises TrainingError where they wait at different places."""
        places = self.all_gather(name)
        if len(set(places)) > 1:
            raise TrainingError(f"the ranks are out of step: they wait at {places}")
