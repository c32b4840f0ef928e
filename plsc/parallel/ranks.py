"""Exchange of small JSON values between ranks through the key-value store, in the same order on every rank."""

from __future__ import annotations

import json
import time
from typing import Any

from plsc.errors import PeerError, TrainingError, first_line

WAIT_SECONDS = 3600  # a barrier may wait for a slow disk, but not for ever


class Ranks:
    """The ranks of a run, as needed for saving, loading and copying. With one rank every method returns at once.

    ``store``: a connection to Paddle's store used by this object alone; not needed with one rank. ``keys``: the prefix
    of its entries, which must be unique in the process. Not thread-safe.
    """

    def __init__(self, rank: int, world_size: int, keys: str = "", store: Any = None):
        self.rank, self.world_size = rank, world_size
        self._keys, self._calls, self._store = keys, 0, store

    def all_gather(self, value: Any) -> list[Any]:
        """[the value of each rank, in order]; values are JSON. Every rank must call it in the same order.

        Raises PeerError if another rank has ended, TrainingError if one does not call it within an hour.
        """
        text = json.dumps(value)
        if self.world_size == 1:
            return [json.loads(text)]
        self._calls += 1
        prefix = f"{self._keys}/{self._calls}/"
        try:
            self._store.set(prefix + str(self.rank), text.encode())
            self._store.add(prefix + f"here/{self.rank}", 1)
            self._store.add(prefix, 1)
            self._await(prefix)
            return [json.loads(bytes(self._store.get(prefix + str(rank)))) for rank in range(self.world_size)]
        except (RuntimeError, OSError, ValueError) as error:  # Paddle 2.6: ValueError where the store is gone
            raise PeerError(f"another rank has ended: {first_line(error)}") from None

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        return self.all_gather(value)[0]

    def barrier(self, name: str = "barrier") -> None:
        """Wait until every rank has called it. Raises TrainingError if they wait at barriers of different names."""
        names = self.all_gather(name)
        if len(set(names)) > 1:
            raise TrainingError(f"the ranks are out of step: they wait at the barriers {names}")

    def _await(self, counter: str) -> None:
        """Wait until every rank has added to the counter; the store's own wait polls ten times slower."""
        pause, deadline = 0.001, time.monotonic() + WAIT_SECONDS
        while self._store.add(counter, 0) < self.world_size:
            if time.monotonic() > deadline:
                ranks = range(self.world_size)
                missing = [rank for rank in ranks if not self._store.add(f"{counter}here/{rank}", 0)]
                raise TrainingError(f"waited {WAIT_SECONDS} seconds for rank(s) {', '.join(map(str, missing))}")
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


class OneRank(Ranks):
    """The only rank of a program that runs alone, such as a tool."""

    def __init__(self) -> None:
        super().__init__(0, 1)
