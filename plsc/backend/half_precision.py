"""Half precision for operations of the backbone. Paddle 3.x casts while building, Paddle 2.6 the finished program."""

from __future__ import annotations

import contextlib

import paddle

from plsc.backend import static


def autocast(enabled: bool, white: list[str], black: list[str]):
    """A context: operations built in it may run in half precision (Paddle 3.x)."""
    if enabled and static.is_pir():
        return paddle.amp.auto_cast(True, white, black, level="O1", dtype="float16")
    return contextlib.nullcontext()


def read_so_far(program) -> set[str]:
    """The names that the operations of ``program`` read (Paddle 2.6; none with 3.x)."""
    return set() if static.is_pir() else {name for op in program.global_block().ops for name in op.input_arg_names}


def cast_program(program, white: list[str], black: list[str], single: set[str]) -> None:
    """Cast the operations of ``program`` that may run in half precision (Paddle 2.6). Those that read one of the names
    ``single`` stay in float32."""
    if static.is_pir():
        return
    from paddle.static.amp import AutoMixedPrecisionLists, fp16_utils

    lists = AutoMixedPrecisionLists(set(white), set(black), custom_black_varnames=single)
    fp16_utils.cast_model_to_fp16(program, lists, use_fp16_guard=False, level="O1")
