"""Exchange of small JSON values between ranks, in the same order on every rank."""

from __future__ import annotations

import json
from typing import Any

from plsc.errors import TrainingError
from plsc.parallel.channel import Channel


class Ranks:
    """The ranks of a run, as needed for saving, loading and copying. With one rank every method returns at once.

    ``channel``: used by this object alone; not needed with one rank. Not thread-safe.
    """

    def __init__(self, rank: int, world_size: int, channel: Channel | None = None):
        self.rank, self.world_size = rank, world_size
        self._channel = channel

    def all_gather(self, value: Any) -> list[Any]:
        """[the value of each rank, in order]; values are JSON. Every rank must call it in the same order.

        Each rank sends its value to rank 0 and receives one message. Raises PeerError if another rank has ended,
        TrainingError if one does not call it within an hour, LaunchError after this rank has failed.
        """
        text = json.dumps(value)
        if self._channel is None:
            return [json.loads(text)]
        return [json.loads(each) for each in self._channel.exchange(text.encode())]

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank. Raises as ``all_gather``."""
        text = json.dumps(value)
        if self._channel is None:
            return json.loads(text)
        return json.loads(self._channel.exchange(text.encode(), first_only=True)[0])

    def barrier(self, name: str = "barrier") -> None:
        """Wait until every rank has called it. Raises TrainingError if they wait at barriers of different names."""
        names = self.all_gather(name)
        if len(set(names)) > 1:
            raise TrainingError(f"the ranks are out of step: they wait at the barriers {names}")


class OneRank(Ranks):
    """The only rank of a program that runs alone, such as a tool."""

    def __init__(self) -> None:
        super().__init__(0, 1)
