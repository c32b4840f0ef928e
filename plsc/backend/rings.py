"""Initialises communication: the ring of all ranks by Gloo (CPU) or NCCL (GPU)."""

from __future__ import annotations

import paddle

from plsc.backend import private
from plsc.backend.collectives import RING
from plsc.backend.gloo_timeout import set_timeout
from plsc.backend.key_server import join_gloo
from plsc.backend.static import is_pir

__all__ = ["gloo_needs_store", "join_gloo", "open_store", "set_gloo_timeout", "start_gloo", "start_nccl"]


def open_store(host: str, port: int, is_server: bool, world_size: int, timeout: int):
    """A key-value store on the server rank; blocks until it is reachable, for at most ``timeout`` seconds."""
    return private.require("base.core.TCPStore")(host, port, is_server, world_size, timeout)


def gloo_needs_store() -> bool:
    """Whether the ranks connect for Gloo by ``start_gloo``, with a store; else by ``join_gloo``."""
    return is_pir()


def start_gloo(store, rank: int, world_size: int):
    """Join the Gloo ring of all ranks (CPU), with Paddle 3. Returns an object that the caller must keep while the ring
    is used."""
    create = private.require("base.core.CommContextManager.create_gloo_comm_context")
    return create(store, str(RING), rank, world_size)


def set_gloo_timeout(rank: int, world_size: int, seconds: int) -> bool:
    """Set the timeout of collectives in the ring of Gloo; False where it remains at Paddle 3's 30 s.

    With Paddle 2.6 it is months already.
    """
    return not is_pir() or set_timeout(paddle.__file__, RING, rank, world_size, seconds)


def start_nccl(store, rank: int, world_size: int, device_id: int) -> None:
    """Join the NCCL ring of all ranks (GPU) with GPU ``device_id``; blocks until every rank has joined.

    In both versions of Paddle, collectives find their ring by its number in the CommContextManager; in 2.6 only with a
    flag that is on by default but may be off in the user's environment.
    """
    if not is_pir():
        paddle.set_flags({"FLAGS_dynamic_static_unified_comm": True})
    manager = private.require("base.core.CommContextManager")
    manager.set_device_id(device_id)
    manager.create_nccl_comm_context(store, str(RING), rank, world_size)
