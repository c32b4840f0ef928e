"""The key server through which the ranks of Paddle 2.6 find each other for Gloo."""

from __future__ import annotations

import logging
import os
import socket
import time


def serve_keys(port: int, world_size: int) -> None:
    """Serve until this process, which is there for nothing else, is killed or its parent has ended."""
    # Paddle's module opens http.log in the working directory, whoever's file that may be
    logging.FileHandler = lambda *_, **__: logging.NullHandler()
    from paddle.distributed.fleet.utils.http_server import KVServer

    KVServer(port, size={"_worker": world_size}).start()
    while os.getppid() != 1:
        time.sleep(0.5)


def await_server(host: str, port: int, seconds: float = 120.0) -> None:
    """Return when somebody listens there. Raises OSError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
