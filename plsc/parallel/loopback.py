"""The network interface on which Gloo of Paddle 3 listens while its ranks connect."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

INTERFACE = "GLOO_SOCKET_IFNAME"


@contextlib.contextmanager
def gloo_on_loopback(endpoints: Sequence[str]) -> Iterator[None]:
    """Within this context Gloo listens on the loopback interface if all ranks' endpoints do, so that no other machine
    can connect.

    A foreign connection would take the place of a rank and end the run. By default Gloo listens on the address of the
    host name. GLOO_SOCKET_IFNAME set by the user takes precedence. Paddle 2.6 does not read it.
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
