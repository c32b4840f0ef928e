"""Static programs: building, states and persistable values, for Paddle's two representations.

Paddle 2.6 has the legacy static IR, Paddle 3.x has PIR. The functions append operations to the program that is being
built (``paddle.static.program_guard``) and return its values.
"""

from __future__ import annotations

import contextlib
import sys
import warnings

import paddle

from plsc.backend import private


def is_pir() -> bool:
    """True on Paddle 3.x, where a static program is PIR; False on 2.6."""
    return not paddle.__version__.startswith("2.")


def append_op(kind: str, inputs: dict, outputs: dict, attrs: dict) -> None:
    """Append one operation of the legacy IR (Paddle 2.6 only)."""
    program = private.require("base.framework").default_main_program()
    program.current_block().append_op(type=kind, inputs=inputs, outputs=outputs, attrs=attrs)


def new_value(kind: str, dtype):
    return private.require("base.layer_helper").LayerHelper(kind).create_variable_for_type_inference(dtype=dtype)


def append_op_out(kind: str, inputs: dict, attrs: dict, dtype):
    """Append an operation of the legacy IR and return its output "Out"."""
    out = new_value(kind, dtype)
    append_op(kind, inputs, {"Out": out}, attrs)
    return out


def custom_operation(kind: str, inputs: dict, outputs: dict):
    """Append an operation of a loaded library. Returns its results.

    ``outputs``: {name: None} for each new float32 result, {name: input} for one that is an input changed in place
    (Paddle 3 knows both from the library).
    """
    if is_pir():
        return private.require("_C_ops._run_custom_op")(kind, *inputs.values())
    made = {name: new_value(kind, "float32") if value is None else value for name, value in outputs.items()}
    append_op(kind, inputs, made, {})
    return list(made.values())


def supports_custom_operations() -> bool:
    """True where ``load_custom_operations`` and ``custom_operation`` work."""
    loads = private.find("utils.cpp_extension.load_op_meta_info_and_register_op") is not None
    return loads and (not is_pir() or private.find("_C_ops._run_custom_op") is not None)


def load_custom_operations(path: str) -> None:
    """Load a library of operations. Raises the exceptions of Paddle."""
    private.require("utils.cpp_extension.load_op_meta_info_and_register_op")(path)


def free_scope(scope) -> None:
    """Free the variables of a scope, which must not be used afterwards. Paddle would keep them until the process
    ends."""
    if hasattr(scope, "_remove_from_pool"):
        scope._remove_from_pool()
    else:
        private.warn_missing("static.Scope._remove_from_pool", "the variables of a run are freed at the process end")


def operation_indices(values: list) -> list[int]:
    """The index, in the program, of the operation that computes each value; the last one if there are several."""
    ops = paddle.static.default_main_program().global_block().ops
    if is_pir():
        numbers = {op.id(): number for number, op in enumerate(ops)}
        return [numbers[value.get_defining_op().id()] for value in values]
    numbers = {name: number for number, op in enumerate(ops) for name in op.output_arg_names}
    return [numbers[value.name] for value in values]


@contextlib.contextmanager
def insert_after(index: int):
    """Operations built in this context are inserted directly after operation number ``index`` of the program, or, where
    this Paddle cannot do that, appended at its end."""
    block = paddle.static.default_main_program().global_block()
    if is_pir():
        begin, end = private.find("pir.set_insertion_point_after"), private.find("pir.reset_insertion_point_to_end")
        if begin is None or end is None:
            private.warn_missing("pir.set_insertion_point_after", "gradients are summed at the end of a step")
            yield
            return
        begin(block.ops[index])
        yield
        end()
        return
    count = len(block.ops)
    yield
    made = block.ops[count:]
    for number, op in enumerate(made, index + 1):
        block._insert_op_without_sync(number, type="nop").desc.copy_from(op.desc)
    for _ in made:
        block._remove_op(len(block.ops) - 1, sync=False)


@contextlib.contextmanager
def building(main, startup):
    """Build into these programs, with names counted from 0 and without Paddle 3.3's warning for each ``zeros_like``."""
    with warnings.catch_warnings(), _short_stacks():
        warnings.filterwarnings("ignore", message="Tensor do not have .place.|The Attr.force_cpu.")
        with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard():
            yield


def create_state(name: str, shape: list[int], dtype: str, value: float = 0.0):
    """A persistable variable that no optimizer changes, initialised to ``value`` by the startup program; if that is not
    run, the existing variable of this name."""
    constant = paddle.nn.initializer.Constant(value)
    state = paddle.static.create_parameter(shape, dtype, name=name, default_initializer=constant)
    state.stop_gradient = True
    if not is_pir():
        state.trainable = False
    return state


def persistables(program) -> dict:
    """Every persistable value of ``program`` by name: parameters, statistics, states."""
    if is_pir():
        block = program.global_block()
        values = list(block.all_parameters())
        for op in block.ops:  # states of Paddle's optimizers are not parameters but persistable data
            values += [value for value in op.results() if op.name() == "pd_op.data" and value.persistable]
        return {value.name: value for value in values}
    skip = ("feed", "fetch")
    return {v.name: v for v in program.list_vars() if v.persistable and v.name not in skip}


def is_trainable(value) -> bool:
    """True for a parameter that an optimizer should update."""
    return bool(getattr(value, "trainable", False)) and not value.stop_gradient


def is_statistic(value) -> bool:
    """True for a float state that no optimizer updates, such as a running mean."""
    return not is_trainable(value) and "float32" in str(value.dtype).lower().replace("fp32", "float32")


@contextlib.contextmanager
def _short_stacks():
    """Prevent Paddle 3 from storing Python's stack with each operation, which it only uses in error messages.

    It never frees these stacks: about 1 MB for each training in a process.
    """
    if not is_pir():
        yield
        return
    missing = object()
    before = getattr(sys, "tracebacklimit", missing)
    sys.tracebacklimit = 0
    try:
        yield
    finally:
        if before is missing:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = before
