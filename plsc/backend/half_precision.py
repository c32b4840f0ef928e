"""Half precision for operations of the backbone. Paddle 3.x casts while building, Paddle 2.6 the finished program."""

from __future__ import annotations

import contextlib
import logging

import paddle

from plsc.backend import static

# Besides Paddle's list. Their inputs and results come from and go to operations in half precision; in float32 they
# would need four casts of the whole image, in the forward pass and in the backward pass.
ALSO_IN_HALF = frozenset({"prelu"})  # with the gradient of plsc.backend.slopes


# Level O2, besides O1: what would otherwise turn the network into float32 between its products, since a parameter (a
# bias, the embedding of a place) is float32. Kernels of these sum in float32.
ALSO_IN_O2 = frozenset({"elementwise_add", "elementwise_mul", "layer_norm", "softmax"})


def is_half(value) -> bool:
    """Whether ``value`` is float16 or bfloat16."""
    return str(value.dtype).lower().rsplit(".", 1)[-1] in ("float16", "fp16", "bfloat16", "bf16")


def in_float32(value):
    """``value``, cast where it is half."""
    return paddle.cast(value, "float32") if is_half(value) else value


def autocast(dtype: str | None, white: list[str], black: list[str]):
    """A context: operations built in it may run in ``dtype`` (float16, bfloat16, or None; Paddle 3.x)."""
    if dtype is not None and static.is_pir():
        return paddle.amp.auto_cast(True, _white(white, black), black, level="O1", dtype=dtype)
    return contextlib.nullcontext()


def read_so_far(program) -> set[str]:
    """The names that the operations of ``program`` read (Paddle 2.6; none with 3.x)."""
    return set() if static.is_pir() else {name for op in program.global_block().ops for name in op.input_arg_names}


def cast_program(program, dtype: str | None, white: list[str], black: list[str], single: set[str]) -> None:
    """Cast the operations of ``program`` that may run in ``dtype`` (Paddle 2.6). Those that read one of the names
    ``single`` stay in float32."""
    if dtype is None or static.is_pir():
        return
    from paddle.static.amp import AutoMixedPrecisionLists, fp16_lists, fp16_utils

    on_cpu = not paddle.is_compiled_with_cuda()
    if on_cpu:  # it would warn that "the current GPU" supports no convolution
        logging.getLogger(fp16_lists.__name__).setLevel(logging.ERROR)
    lists = AutoMixedPrecisionLists(set(_white(white, black)), set(black), custom_black_varnames=single, dtype=dtype)
    if on_cpu:  # it asks for kernels of GPUs, and finds none
        lists.unsupported_list = set(black)
    half = getattr(paddle, dtype)
    fp16_utils.cast_model_to_fp16(program, lists, use_fp16_guard=False, dest_type=half, level="O1")


def _white(white: list[str], black: list[str]) -> list[str]:
    return sorted({*white, *ALSO_IN_HALF} - set(black))
