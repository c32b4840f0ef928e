"""The parts of a batch that a network processes one after another, in one program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import paddle

from plsc.backend import private, static
from plsc.backend.op_copies import another_variable, has_blocks, insert_copy

_SOURCES = ("builtin.parameter", "pd_op.data")  # the operations of Paddle 3 that stand for a variable


def part(value, number: int, count: int):
    """Part ``number`` of ``count`` equal parts [B, ...] of ``value`` [count * B, ...]."""
    size = value.shape[0] // count
    result = paddle.slice(value, [0], [number * size], [(number + 1) * size])
    result.stop_gradient = value.stop_gradient
    return result


class ForwardPass:
    """All operations of ``program`` after those that compute ``inputs``: a network that can be applied again.

    ``results``: the values that it computes. Raises ValueError for a loop or branch among the operations.
    """

    def __init__(self, program, inputs: Sequence[Any], results: Sequence[Any]):
        self._block, self._inputs, self._results = program.global_block(), list(inputs), list(results)
        ops = list(self._block.ops)
        self._ops = ops[1 + max(_places(ops, self._inputs)) :]
        found = [op for op in self._ops if has_blocks(op)]
        if found:
            raise ValueError(f"a loop or branch ({_kind(found[0])}) cannot be repeated")

    def again(self, inputs: Iterable[Any]) -> list[Any]:
        """Append a copy that reads ``inputs``; returns its results. Parameters and other variables are shared: the copy
        changes running statistics once more, and draws random numbers of its own."""
        return self._again_pir(inputs) if static.is_pir() else self._again_legacy(inputs)

    def _again_legacy(self, inputs: Iterable[Any]) -> list[Any]:
        renamed = {own.name: value.name for own, value in zip(self._inputs, inputs)}
        for op in self._ops:
            for name in op.output_arg_names:
                if name not in renamed and not self._block._var_recursive(name).persistable:
                    renamed[name] = another_variable(self._block, name, "REPEATED")
            insert_copy(self._block, len(self._block.ops), op, renamed)
        self._block._sync_with_cpp()
        return [self._block.var(renamed.get(value.name, value.name)) for value in self._results]

    def _again_pir(self, inputs: Iterable[Any]) -> list[Any]:
        pir = private.require("pir")
        private.require("pir.CloneOptions")
        mapping, known = private.require("pir.IrMapping")(), set()
        for own, value in zip(self._inputs, inputs):
            mapping.add(own, value)
            known.add(own.id)
        for op in self._ops:
            if op.name() in _SOURCES:
                continue
            for value in op.operands_source():
                if value.initialized() and value.id not in known:
                    mapping.add(value, value)
                    known.add(value.id)
            op.clone(mapping, pir.CloneOptions(False, True, True))
            known.update(value.id for value in op.results())
        return [mapping.look_up(value) for value in self._results]


def _places(ops: list, values: list) -> list[int]:
    """The numbers of the operations that compute ``values``."""
    if static.is_pir():
        numbers = {op.id(): number for number, op in enumerate(ops)}
        return [numbers[value.get_defining_op().id()] for value in values]
    numbers = {name: number for number, op in enumerate(ops) for name in op.output_arg_names}
    return [numbers[value.name] for value in values]


def _kind(op) -> str:
    return op.name() if static.is_pir() else op.type
