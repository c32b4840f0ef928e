"""The start of the communication: the ring of all ranks by Gloo (CPU) or NCCL (GPU)."""

from __future__ import annotations

import paddle

from plsc.backend import private
from plsc.backend.collectives import RING
from plsc.backend.gloo_timeout import set_timeout
from plsc.backend.key_server import join_gloo
from plsc.backend.static import is_pir


def open_store(host: str, port: int, is_server: bool, world_size: int, timeout: int):
    """A key-value store on the server rank; blocks until it is reachable, at most ``timeout`` seconds."""
    return private.require("base.core.TCPStore")(host, port, is_server, world_size, timeout)


def start_gloo(store, rank: int, world_size: int, endpoint: str):
    """Join the Gloo ring of all ranks (CPU); returns what the caller has to keep as long as the ring is used.

    ``endpoint`` is a free host:port of rank 0, used by Paddle 2.6.
    """
    if is_pir():
        create = private.require("base.core.CommContextManager.create_gloo_comm_context")
        return create(store, str(RING), rank, world_size)
    return join_gloo(store, rank, world_size, endpoint)


def set_gloo_timeout(rank: int, world_size: int, seconds: int) -> bool:
    """Let the collectives of the ring of ``start_gloo`` wait for ``seconds``; False where it stays at Paddle 3's 30.

    Paddle 2.6 waits for months.
    """
    return not is_pir() or set_timeout(paddle.__file__, RING, rank, world_size, seconds)


def start_nccl(store, rank: int, world_size: int, device_id: int) -> None:
    """Join the NCCL ring of all ranks (GPU) with card ``device_id``; blocks until every rank has joined.

    The collectives of both Paddles look for their ring, by its number, in the CommContextManager; those of 2.6 do so
    under a flag that is on unless the user's environment says otherwise.
    """
    if not is_pir():
        paddle.set_flags({"FLAGS_dynamic_static_unified_comm": True})
    manager = private.require("base.core.CommContextManager")
    manager.set_device_id(device_id)
    manager.create_nccl_comm_context(store, str(RING), rank, world_size)
