"""Parameters in half precision: each is cast once a step, at the beginning of the program."""

from __future__ import annotations

from typing import Any

import paddle

from plsc.backend import static


def hoist(program, dtype: str) -> dict[str, Any]:
    """Let all operations that read a parameter cast to ``dtype`` read one cast, before those that compute the inputs.

    So micro-batches and parts that are computed again share it. Returns {name of the parameter: its copy}, without
    those that some operation also reads as they are: the gradient by the copy is that of the parameter.
    """
    return _hoist_pir(program, dtype) if static.is_pir() else _hoist_legacy(program, dtype)


def _hoist_pir(program, dtype: str) -> dict[str, Any]:
    block, half, copies = program.global_block(), getattr(paddle, dtype), {}
    kinds = [op.name() for op in block.ops]
    last = max(number for number, kind in enumerate(kinds) if kind == "builtin.parameter")
    for parameter in block.all_parameters():
        users = parameter.all_used_ops()
        casts = [op for op in users if op.name() == "pd_op.cast" and op.results()[0].dtype == half]
        if not casts:
            continue
        with static.insert_after(last):
            copy = paddle.cast(parameter, dtype)
        copy.stop_gradient = parameter.stop_gradient
        for op in casts:
            op.results()[0].replace_all_uses_with(copy)
            block.remove_op(op)
        if len(casts) == len(users):
            copies[parameter.name] = copy
    return copies


def _hoist_legacy(program, dtype: str) -> dict[str, Any]:
    block, half = program.global_block(), getattr(paddle, dtype)
    parameters = {parameter.name for parameter in block.all_parameters()}
    casts, others = {}, set()
    for number, op in enumerate(block.ops):
        read = parameters & set(op.input_arg_names)
        if read and op.type == "cast" and block.var(op.output("Out")[0]).dtype == half:
            casts[number] = op
        else:
            others |= read
    copies = {op.input("X")[0]: block.var(op.output("Out")[0]) for op in casts.values()}
    for place, op in enumerate(casts.values()):
        block._insert_op_without_sync(place, type="nop").desc.copy_from(op.desc)
    for number in reversed(casts):
        block._remove_op(number + len(casts), sync=False)
    block._sync_with_cpp()
    return {name: copy for name, copy in copies.items() if name not in others}
