"""The contents of a built program: its operations in order, the tensors they read and write, and their sizes.

Supports programs of both versions of Paddle (2.6: legacy IR, 3.x: PIR) and runs nothing. A tensor represents a block of
memory: the result of an in-position operation is the tensor that it changes, and a list of tensors is its elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from plsc.backend import private, static

BYTES = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "float64": 8, "int64": 8}
FUSED = ("batch_norm", "elementwise_add")
INSIDE = "inside"  # the key of the tensors inside a loop or branch, see peak_memory
COLLECTIVES = {
    "c_allgather": "all_gather", "c_allreduce_sum": "all_reduce", "c_allreduce_max": "all_reduce",
    "c_reducescatter": "reduce_scatter", "all_gather": "all_gather", "all_reduce": "all_reduce",
    "reduce_scatter": "reduce_scatter",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A block of memory, identified by ``key``. A size that is unknown at build time is -1 in ``shape``.

    ``name``: of a persistable variable; "" for a temporary tensor of a step.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    name: str = ""

    def size(self, unknown: int = 1) -> int:
        """The size in bytes, with ``unknown`` for every unknown size."""
        return math.prod(unknown if side < 0 else side for side in self.shape) * BYTES.get(self.dtype, 4)


@dataclass(frozen=True)
class Operation:
    """``kind``: the name without dialect and without the _ of in-position operations. ``needs``: those of ``reads``
    whose values are used (a gradient may read a shape only). ``reuses``: the arguments that the executor may overwrite
    with the result where they are not read later. ``blocks``: the bodies of a loop or branch.
    """

    kind: str
    reads: tuple[Tensor, ...]
    needs: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    reuses: tuple[Tensor, ...]
    blocks: tuple[tuple[Operation, ...], ...] = ()


def operations(program) -> list[Operation]:
    """The operations of ``program`` in program order. Raises private.Missing where this Paddle does not expose them."""
    block = program.global_block()
    return list(_pir_operations(block, {}) if static.is_pir() else _legacy_operations(program, block, outermost=True))


def count_with_blocks(program) -> int:
    """The number of loops and branches of ``program``, also within others; 0 where this Paddle does not expose its
    operations."""
    try:
        return sum(bool(op.blocks) for op in walk(operations(program)))
    except private.Missing:
        return 0


def walk(ops: Iterable[Operation]) -> Iterator[Operation]:
    """All of ``ops`` and, recursively, those in their blocks."""
    for op in ops:
        yield op
        for block in op.blocks:
            yield from walk(block)


def collective_bytes(ops: Iterable[Operation], unknown: int = 1) -> list[tuple[str, int]]:
    """(collective, bytes of its input on this rank) in program order.

    One inside a loop is listed once, with the bytes of all iterations if these process ``unknown`` rows in total.
    """
    found = []
    for op in walk(ops):
        if op.kind in COLLECTIVES:
            found.append((COLLECTIVES[op.kind], sum(tensor.size(unknown) for tensor in op.reads)))
    return found


def peak_memory(ops: list[Operation], unknown: int = 1, inside: int | None = None) -> dict[str, int]:
    """{key: bytes} of the tensors that exist when the total is largest, without persistable ones.

    An operation's results exist together with its arguments; an argument is freed after the last operation that needs
    it. Inputs of the program exist to the end. Workspace inside kernels is not counted. The tensors of one iteration of
    a loop, or of a branch, are summed under the key INSIDE; ``inside``, if given, replaces unknown sizes there.
    """
    return _peak(ops, unknown, unknown if inside is None else inside, input_bytes(ops, unknown))


def input_bytes(ops: list[Operation], unknown: int = 1) -> dict[str, int]:
    """{key: bytes} of what the program is fed."""
    written: set[str] = set()
    inputs: dict[str, int] = {}
    for op in ops:
        new = op.writes if op.kind == "data" else [tensor for tensor in op.reads if tensor.key not in written]
        inputs.update({tensor.key: tensor.size(unknown) for tensor in new if not tensor.name})
        written.update(tensor.key for tensor in op.writes)
    return inputs


def _peak(ops: Iterable[Operation], unknown: int, unknown_inside: int, kept: dict[str, int]) -> dict[str, int]:
    last = {tensor.key: position for position, op in enumerate(ops) for tensor in _needed(op)}
    sizes, most = dict(kept), dict(kept)
    for position, op in enumerate(ops):
        dying = {t.key for t in _needed(op) if last[t.key] == position and t.key in sizes and t.key not in kept}
        for tensor in op.writes:
            if tensor.name or tensor.key in sizes:
                continue
            size = tensor.size(unknown)
            reusable = (other.key for other in op.reuses if other.key in dying)
            taken = next((key for key in reusable if sizes[key] == size), None)
            if taken is not None:
                dying.remove(taken)
                del sizes[taken]
            sizes[tensor.key] = size
        bodies = [sum(_peak(block, unknown_inside, unknown_inside, {}).values()) for block in op.blocks]
        if sum(sizes.values()) + max(bodies, default=0) > sum(most.values()):
            most = {**sizes, INSIDE: max(bodies)} if bodies else dict(sizes)
        unread = {tensor.key for tensor in op.writes if last.get(tensor.key, -1) <= position}
        for key in (dying | unread) - kept.keys():
            sizes.pop(key, None)
    return most


def predictor_memory(ops: list[Operation], unknown: int) -> int:
    """Bytes of the temporary tensors of Paddle Inference, which runs ``ops``.

    That of Paddle 2.6 keeps the results of all operations, but for those that it fuses with the one before: a batch
    normalisation, and the addition of a bias (measured, docs/history.md).
    """
    if static.is_pir():
        return sum(peak_memory(ops, unknown).values())
    kept = [op for op in ops if not (op.kind in FUSED and sum(-1 in tensor.shape for tensor in op.reads) == 1)]
    return sum(tensor.size(unknown) for op in kept for tensor in op.writes if not tensor.name)


def persistables(ops: Iterable[Operation]) -> dict[str, Tensor]:
    """The persistable tensors by name: parameters, statistics, states."""
    return {tensor.name: tensor for op in walk(ops) for tensor in (*op.reads, *op.writes) if tensor.name}


def _needed(op: Operation) -> Iterator[Tensor]:
    """The tensors that must exist when ``op`` runs, also for the operations in its blocks."""
    yield from op.needs
    for inner in walk(inner for block in op.blocks for inner in block):
        yield from inner.needs


def _sized(kind: str, writes: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """``writes`` of an operation. What cuDNN reserves in a batch normalisation has no size at build time, and not that
    of anything else; it is no part of the count."""
    if "batch_norm" not in kind:
        return tuple(writes)
    return tuple(replace(tensor, shape=(0,)) if tensor.shape == (-1,) else tensor for tensor in writes)


# --- Paddle 3.x -------------------------------------------------------------------------------------------


def _pir_operations(block, known: dict[str, tuple[Tensor, ...]]) -> Iterator[Operation]:
    """``known`` holds the tensors of each value so far."""
    for op in block.ops:
        kind = op.name().split(".", 1)[-1]
        sources = [value for value in op.operands_source() if value.initialized()]  # omitted options are not
        reads = [_pir_tensors(value, known) for value in sources]
        if kind == "combine":
            known[op.results()[0].id] = tuple(tensor for tensors in reads for tensor in tensors)
            continue
        if op.name() == "builtin.split":
            known.update({value.id: (tensor,) for value, tensor in zip(op.results(), reads[0])})
            continue
        if kind.endswith("_"):
            _pir_in_place(op, known)
        inner = []
        for body in op.blocks():
            inner.append(tuple(_pir_operations(body, known)))
        needs = [
            tensor for value, tensors in zip(sources, reads) if not op.is_no_need_buffer(value) for tensor in tensors
        ]
        writes = _sized(kind, [tensor for value in op.results() for tensor in _pir_tensors(value, known)])
        reads = tuple(tensor for tensors in reads for tensor in tensors)
        reuses = _pir_reusable(kind, reads) if hasattr(private.require("base.core.pir.ops"), kind + "_") else ()
        yield Operation(kind.rstrip("_"), reads, tuple(needs), writes, reuses, tuple(inner))


def _pir_reusable(kind: str, reads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The arguments that Paddle's pass for in-place operations may reuse: none with an unknown size but the first, and
    of an operation of a forward pass the first argument only (measured, tests/engine/test_gpu_memory_measured.py)."""
    chosen = reads if kind.endswith("_grad") else reads[:1]
    return tuple(tensor for tensor in chosen if -1 not in tensor.shape[1:])


def _pir_in_place(op, known: dict[str, tuple[Tensor, ...]]) -> None:
    for result, source in private.require("base.core.pir.get_op_inplace_info")(op).items():
        changed = op.operand_source(source)
        if changed.initialized():
            known[op.results()[result].id] = _pir_tensors(changed, known)


def _pir_tensors(value, known: dict[str, tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    if value.id not in known:
        vector = value.type().as_vec_type()
        types = [value] if vector is None else vector.as_list()
        if vector is None and not value.is_dense_tensor_type():  # an unused optional result
            types = []
        known[value.id] = tuple(_pir_tensor(f"{value.id}/{number}", kind, value) for number, kind in enumerate(types))
    return known[value.id]


def _pir_tensor(key: str, kind: Any, value) -> Tensor:
    dtype = str(kind.dtype).lower().rsplit(".", 1)[-1]
    named = value.persistable and value.get_defining_op().name() != "pd_op.fetch"  # whose results have no name
    return Tensor(key, tuple(kind.shape), dtype, value.name if named else "")


# --- Paddle 2.6 -------------------------------------------------------------------------------------------


def _legacy_operations(program, block, outermost: bool) -> Iterator[Operation]:
    """Only in the ``outermost`` block are arguments overwritten with results, by a pass that leaves out the others."""
    for op in block.ops:
        reads = _legacy_tensors(block, op.input_arg_names)
        writes = _sized(op.type, _legacy_tensors(block, op.output_arg_names))
        inner = []
        if op.has_attr("sub_block"):
            body = program.block(op._block_attr_id("sub_block"))
            inner.append(tuple(_legacy_operations(program, body, outermost=False)))
        unused = _legacy_unused(op)
        needs = tuple(tensor for tensor in reads if tensor.key not in unused)
        reuses = reads if outermost and private.require("base.core").has_infer_inplace(op.type) else ()
        yield Operation(op.type, reads, needs, writes, reuses, tuple(inner))


def _legacy_unused(op) -> set[str]:
    inputs = {slot: op.input(slot) for slot in op.input_names}
    outputs = {slot: op.output(slot) for slot in op.output_names}
    attrs = {name: op.attr(name) for name in op.attr_names}
    slots = private.require("base.core").infer_no_need_buffer_slots(op.type, inputs, outputs, attrs)
    return {name for slot in slots for name in op.input(slot)}


def _legacy_tensors(block, names: list[str]) -> tuple[Tensor, ...]:
    """The tensors among these variables; an unused gradient has a name but no variable."""
    found = [block._find_var_recursive(name) for name in names]
    kind = private.require("base.core").VarDesc.VarType.LOD_TENSOR
    return tuple(_legacy_tensor(variable) for variable in found if variable is not None and variable.type == kind)


def _legacy_tensor(variable) -> Tensor:
    dtype = str(variable.dtype).lower().rsplit(".", 1)[-1].replace("fp", "float")
    name = variable.name
    return Tensor(name, tuple(variable.shape), dtype, name if variable.persistable else "")
