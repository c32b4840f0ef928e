"""Collectives, appended to the program being built. Rank and world size are arguments."""

from __future__ import annotations

import paddle

from plsc.backend import private
from plsc.backend.static import append_op, append_op_out, is_pir, new_value

RING = 0  # one communication ring: all ranks
STREAM = "plsc_gradients"  # CUDA stream for the sums of the backbone's gradients
SUM, MAX = "sum", "max"


def all_gather(value, world_size: int):
    """[B, ...] on each rank -> [B * world_size, ...] on every rank, in the order of the ranks."""
    if world_size == 1:
        return value
    if is_pir():
        return private.require("_C_ops.all_gather")(value, RING, world_size)
    attrs = {"ring_id": RING, "nranks": world_size, "use_calc_stream": True}
    return append_op_out("c_allgather", {"X": value}, attrs, value.dtype)


def all_reduce(value, world_size: int, kind: str = SUM):
    """Elementwise sum or maximum over the ranks, the same result on every rank."""
    if world_size == 1:
        return value
    if is_pir():
        reduce_op = {SUM: paddle.distributed.ReduceOp.SUM, MAX: paddle.distributed.ReduceOp.MAX}[kind]
        return private.require("_C_ops.all_reduce")(value, RING, reduce_op)
    return append_op_out(f"c_allreduce_{kind}", {"X": value}, {"ring_id": RING, "use_calc_stream": True}, value.dtype)


def all_reduce_overlapped(value, world_size: int, own_stream: bool):
    """all_reduce that the executor starts in program order. By default it starts collectives after all other operations
    that are ready.

    ``own_stream``: use a separate CUDA stream, so that it overlaps with computation (docs/gpu_program.md). ``value``
    must have no other reader: with Paddle 2.6 the sum may overwrite it. For an operation on another stream, Paddle 2.6
    would allocate the result from memory that is free on the computing stream but may still be read on the other one.
    """
    if is_pir():
        total = all_reduce(value, world_size)
        op = total.get_defining_op()
        if not hasattr(op, "set_scheduling_priority") or not hasattr(op, "set_execution_stream"):
            private.warn_missing("pir.Operation.set_scheduling_priority", "gradients are summed at the end of a step")
            return total
        op.set_scheduling_priority(0)
        if own_stream:
            op.set_execution_stream(STREAM)
        return total
    attrs = {"ring_id": RING, "use_calc_stream": True}
    total = value if own_stream else new_value("c_allreduce_sum", value.dtype)
    append_op("c_allreduce_sum", {"X": value}, {"Out": total}, attrs)
    settings = private.require("base.framework").default_main_program().current_block().ops[-1].dist_attr
    settings.scheduling_priority = 0
    settings.execution_stream = STREAM if own_stream else settings.execution_stream
    return total


def reduce_scatter(value, rank: int, world_size: int, on_gpu: bool):
    """[B * world_size, ...] on each rank -> this rank's [B, ...] of the sum over the ranks.

    Gloo has no reduce-scatter kernel in either version of Paddle, so CPU ranks all-reduce and keep their slice.
    """
    if world_size == 1:
        return value
    if not on_gpu:
        return paddle.split(all_reduce(value, world_size), world_size, axis=0)[rank]
    if is_pir():
        return private.require("_C_ops.reduce_scatter")(value, RING, world_size)
    attrs = {"ring_id": RING, "nranks": world_size, "use_calc_stream": True}
    return append_op_out("c_reducescatter", {"X": value}, attrs, value.dtype)
