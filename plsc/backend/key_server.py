"""The key server with which ranks of Paddle 2.6 connect for Gloo."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Callable

from plsc.backend import flags, private


def join_gloo(rank: int, world_size: int, endpoint: str, seconds: int, wait_for_all: Callable[[str], None]):
    """Join the Gloo ring of all ranks, with Paddle 2.6; returns an object that the caller must keep.

    endpoint: a free host:port of rank 0. seconds: the longest wait for another rank, during which no other thread of
    this process runs, as Paddle holds Python's lock. wait_for_all(name) returns when all ranks have called it.

    It does what paddle.distributed.gloo_init_parallel_env does, but without its sleeps of 3 seconds.
    """
    core = private.require("base.core")
    host, port = endpoint.rsplit(":", 1)
    server = None
    if rank == 0:
        server = multiprocessing.get_context("fork").Process(
            target=serve_keys, args=(int(port), world_size, os.getpid()), daemon=True
        )
        server.start()
    try:
        await_server(host, int(port), seconds)
        wait_for_all("key server")
        strategy = core.GlooParallelStrategy()
        strategy.rank, strategy.rank_num = rank, world_size
        strategy.ip_address, strategy.ip_port = host, int(port)
        strategy.iface = flags.in_environment("GLOO_SOCKET_IFNAME") or ""  # Paddle 3 reads the variable itself
        strategy.init_seconds, strategy.run_seconds = seconds, 9999999
        context = core.GlooParallelContext(strategy)
        context.init()
        wait_for_all("Gloo joined")
    finally:
        if server is not None:
            server.kill()
    return context


def serve_keys(port: int, world_size: int, parent: int) -> None:
    """Serve until this process is killed or ``parent``, which started it, has ended. It runs in a separate process."""
    # Paddle's module would write to http.log in the working directory, which may be a user's file
    logging.FileHandler = lambda *_, **__: logging.NullHandler()
    from paddle.distributed.fleet.utils.http_server import KVServer

    KVServer(port, size={"_worker": world_size}).start()
    while os.getppid() == parent:  # an orphan's parent need not be process 1
        time.sleep(0.5)


def await_server(host: str, port: int, seconds: float) -> None:
    """Wait until the port accepts connections. Raises OSError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
