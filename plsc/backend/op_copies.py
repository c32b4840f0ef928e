"""Copies of operations within a program of Paddle 2.6, for whoever repeats a part of it; see also ``has_blocks``."""

from __future__ import annotations

from collections.abc import Mapping

import paddle

from plsc.backend import static


def has_blocks(op) -> bool:
    """True for a loop or branch: an operation that contains others (both versions of Paddle)."""
    return any(True for _ in op.blocks()) if static.is_pir() else op.has_attr("sub_block")


def another_variable(block, name: str, mark: str) -> str:
    """Create a variable like ``name`` for the result of a copy; returns its name, which has ``mark`` in it."""
    value = block._var_recursive(name)
    made = block.create_var(
        name=paddle.utils.unique_name.generate(f"{name}@{mark}"), shape=value.shape, dtype=value.dtype,
        type=value.type, persistable=False, stop_gradient=value.stop_gradient,
    )  # fmt: skip
    return made.name


def insert_copy(block, place: int, op, renamed: Mapping[str, str]) -> None:
    """Insert a copy of ``op`` at ``place`` that reads and writes other variables. The caller then calls
    ``block._sync_with_cpp()``."""
    desc = block._insert_op_without_sync(place, type="nop").desc
    desc.copy_from(op.desc)
    for name in dict.fromkeys([*op.input_arg_names, *op.output_arg_names]):
        if name in renamed:
            desc._rename_input(name, renamed[name])
            desc._rename_output(name, renamed[name])
