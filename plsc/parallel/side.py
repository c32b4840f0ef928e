"""A second connection between the ranks, for a thread that communicates during training."""

from __future__ import annotations

from plsc.backend import rings
from plsc.errors import LaunchError, first_line
from plsc.parallel.environment import Environment
from plsc.parallel.group import CONNECT_SECONDS
from plsc.parallel.nodelay import disable_nagle
from plsc.parallel.ranks import Ranks


class SideGroup(Ranks):
    """The same ranks with a separate connection and separate keys, for a thread beside the one that uses ``Group``.

    Create it on every rank after ``Group``, whose store it connects to, with a new ``name`` each time. Raises
    LaunchError where the store cannot be reached.
    """

    def __init__(self, env: Environment, name: str):
        super().__init__(env.rank, env.world_size, keys=name)
        if env.world_size == 1:
            return
        host, port = env.endpoints[0].rsplit(":", 1)
        try:
            self._store = rings.open_store(host, int(port), False, env.world_size, CONNECT_SECONDS)
            disable_nagle(int(port))
        except Exception as error:
            raise LaunchError(
                f"rank {env.rank}: cannot reach rank 0 at {env.endpoints[0]}: {first_line(error)}; "
                "check that all ranks run and that the port is open"
            ) from None
