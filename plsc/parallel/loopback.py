"""Where Gloo of Paddle 3 listens while its ranks meet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

INTERFACE = "GLOO_SOCKET_IFNAME"


@contextlib.contextmanager
def gloo_on_loopback(endpoints: Sequence[str]) -> Iterator[None]:
    """Within this, where all ranks meet on this machine's loopback, so does Gloo: nobody from elsewhere can come first.

    A connection of a stranger takes the place of a rank's there, and ends the run. By itself Gloo listens at the
    address of the machine's name. A user's own GLOO_SOCKET_IFNAME stays. Paddle 2.6 does not read it.
    """
    hosts = {endpoint.rsplit(":", 1)[0] for endpoint in endpoints}
    if os.environ.get(INTERFACE) or not all(host == "localhost" or host.startswith("127.") for host in hosts):
        yield
        return
    os.environ[INTERFACE] = "lo"
    try:
        yield
    finally:
        os.environ.pop(INTERFACE, None)
