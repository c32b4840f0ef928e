"""The parts of Paddle's GPU wheel on which rings.start_nccl rests, as far as they answer without a GPU."""

from __future__ import annotations

import paddle
import pytest
from paddle.base import core

from plsc.backend import rings


def test_collectives_look_for_their_ring_where_it_is_made():
    """With this flag the kernels of 2.6 take the ring from the CommContextManager; it is on, and can be set."""
    name = "FLAGS_dynamic_static_unified_comm"
    assert paddle.get_flags(name)[name]
    paddle.set_flags({name: False})
    with pytest.raises((ValueError, RuntimeError, TypeError)):  # no GPU here, or no store
        rings.start_nccl(None, 0, 2, 0)
    assert paddle.get_flags(name)[name]


def test_signature():
    text = core.CommContextManager.create_nccl_comm_context.__doc__
    assert "rank: int, size: int, hash_key: str = ''" in text and "unique_comm_key: str" in text
