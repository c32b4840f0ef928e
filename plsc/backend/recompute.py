"""Computes parts of a forward pass again in the backward pass, so that their results need not be kept in between.

A finished program is changed: the operations between two boundaries are copied to the place where their results are
first needed by gradients, which then read the copies. The same kernels see the same numbers, so no bit of the results
changes (training deep nets with sublinear memory cost, arXiv:1604.06174, with the network's own segments).

Random numbers are never drawn again, and running statistics are updated once: their copies go to tensors that nobody
reads, one for all layers of a segment that have as many channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle

from plsc.backend import private, static
from plsc.backend.op_copies import another_variable, has_blocks, insert_copy

RANDOM = {
    "uniform", "uniform_random", "gaussian", "gaussian_random", "dropout", "bernoulli", "randint", "randperm",
    "truncated_gaussian_random", "multinomial", "exponential", "seed",
}  # fmt: skip
STATISTICS = (1, 2)  # the results of batch_norm that are its running mean and variance


def recompute(
    program,
    boundaries: Sequence[Any],
    last: Any,
    within: Sequence[Sequence[Any]] = (),
    kept: Iterable[Any] = (),
) -> list[str]:
    """Compute the values between each two of ``boundaries`` again; returns the kinds of the copied operations.

    boundaries: values of the forward pass, in program order; the first may be an input. last: the result of the forward
    pass; operations after it are gradients. within: for each two boundaries, values between them, in program order,
    between which the copies are computed once more. kept: values at the begin of the program that are not computed
    again. Raises private.Missing where this Paddle cannot change a program.
    """
    part = _PirProgram(program) if static.is_pir() else _LegacyProgram(program)
    end = part.place(last) + 1
    begin = max((part.place(value) for value in kept), default=-1)
    places = [max(begin, part.place(value)) for value in boundaries]
    copied: list[str] = []
    made: list[_Copies] = []
    for first, after in zip(places, places[1:]):  # the first segment is the last in the backward pass
        segment = part.repeat(range(first + 1, after + 1), end)
        copied += segment.kinds
        made.append(segment)
    for segment, values in zip(made, within):
        again = [segment.copies[part.key(value)] for value in values if part.key(value) in segment.copies]
        if len(again) > 1:
            copied += recompute(program, again, segment.last)
    return copied


@dataclass(frozen=True)
class _Copies:
    """``kinds`` of the copied operations; ``copies``: {key of a value: its copy}; ``last``: a result of the last."""

    kinds: list[str] = field(default_factory=list)
    copies: dict[Any, Any] = field(default_factory=dict)
    last: Any = None


class _LegacyProgram:
    """A program of Paddle 2.6. Operations are known by their places before anything is inserted: segments are repeated
    from the end of the backward pass on, so that those before stay valid."""

    def __init__(self, program):
        self._block = program.global_block()
        self._kept = {name for op in self._block.ops for name in op.output_arg_names if self._is_persistable(name)}

    def place(self, value) -> int:
        """The number of the operation that computes ``value``; -1 for an input."""
        found = [number for number, op in enumerate(self._block.ops) if value.name in op.output_arg_names]
        return found[0] if found else -1

    def repeat(self, segment: range, end: int) -> _Copies:
        """Copy the operations of ``segment`` before the first operation from ``end`` on that reads their results."""
        ops = self._block.ops
        segment_ops = [ops[number] for number in segment]
        copied = [op for op in segment_ops if op.type not in RANDOM and not has_blocks(op)]
        names = {name for op in copied for name in op.output_arg_names} - self._kept
        shared = {name for number, op in enumerate(ops[:end]) if number not in segment for name in op.input_arg_names}
        replaced = names - shared - set(segment_ops[-1].output_arg_names if segment_ops else ())
        readers = [number for number in range(end, len(ops)) if replaced & set(ops[number].input_arg_names)]
        if not readers:
            return _Copies()
        wanted = _needed(copied, replaced & {name for number in readers for name in ops[number].input_arg_names})
        renamed = {name: self._another(name) for op in wanted for name in op.output_arg_names if name not in self._kept}
        for number in readers:
            for name in replaced.intersection(ops[number].input_arg_names):
                ops[number].desc._rename_input(name, renamed[name])
        place, unread = readers[0], {}
        for op in wanted:
            statistics = {}
            for part, name in self._statistics(op).items():
                key = (part, *self._block.var(name).shape)
                if key not in unread:
                    unread[key] = self._another(name)
                    self._insert_zeros(place, unread[key])
                    place += 1
                statistics[name] = unread[key]
            insert_copy(self._block, place, op, {**renamed, **statistics})
            place += 1
        self._block._sync_with_cpp()
        copies = {name: self._block.var(made) for name, made in renamed.items()}
        last = next(name for name in wanted[-1].output_arg_names if name not in wanted[-1].input_arg_names)
        return _Copies([op.type for op in wanted], copies, copies[last])

    @staticmethod
    def key(value) -> str:
        return value.name

    @staticmethod
    def _statistics(op) -> dict[str, str]:
        """The running mean and variance that ``op`` changes, by what they are; the kernel wants both."""
        if op.type not in ("batch_norm", "sync_batch_norm") or op.attr("is_test"):
            return {}
        return {part: name for part in ("MeanOut", "VarianceOut") for name in op.output(part)}

    def _insert_zeros(self, place: int, name: str) -> None:
        value = self._block.var(name)
        self._block._insert_op_without_sync(
            place, type="fill_constant", outputs={"Out": [value]},
            attrs={"shape": list(value.shape), "dtype": value.dtype, "value": 0.0},
        )  # fmt: skip

    def _another(self, name: str) -> str:
        return another_variable(self._block, name, "RECOMPUTED")

    def _is_persistable(self, name: str) -> bool:
        return self._block.has_var(name) and self._block.var(name).persistable


def _needed(ops: list, names: set[str]) -> list:
    """Those of ``ops`` that ``names`` depend on, in their order."""
    found, wanted = [], set(names)
    for op in reversed(ops):
        if wanted & set(op.output_arg_names):
            found.append(op)
            wanted.update(op.input_arg_names)
    return found[::-1]


class _PirProgram:
    """A program of Paddle 3."""

    def __init__(self, program):
        self._block = program.global_block()
        self._ops = list(self._block.ops)
        self._places = {op.id(): number for number, op in enumerate(self._ops)}
        self._pir = private.require("pir")
        private.require("pir.IrMapping")
        private.require("pir.CloneOptions")
        private.require("pir.set_insertion_point")
        private.require("pir.reset_insertion_point_to_end")

    def place(self, value) -> int:
        """The number of the operation that computes ``value``."""
        return self._places[value.get_defining_op().id()]

    def repeat(self, segment: range, end: int) -> _Copies:
        """Copy the operations of ``segment`` before the first operation from ``end`` on that reads their results."""
        copied = [self._ops[number] for number in segment if self._is_copied(self._ops[number])]
        values = [value for op in copied for value in self._replaced(op, segment, end)]
        readers = {number: self._ops[number] for value in values for number in self._readers(value) if number >= end}
        if not readers:
            return _Copies()
        mapping = self._pir.IrMapping()
        self._pir.set_insertion_point(readers[min(readers)])
        try:
            wanted = self._needed(copied, {self._place_of(value) for value in values if self._later(value, end)})
            known: set[int] = set()
            unread: dict[tuple, Any] = {}
            for op in wanted:
                self._copy(op, mapping, known, unread)
            for value in values:
                if self._later(value, end):
                    value.replace_grad_users_with(mapping.look_up(value), set(readers.values()))
        finally:
            self._pir.reset_insertion_point_to_end()
        results = [value for op in wanted for value in op.results() if value.initialized()]
        copies = {value.id: mapping.look_up(value) for value in results}
        return _Copies([op.name().split(".")[-1] for op in wanted], copies, copies[results[-1].id])

    @staticmethod
    def key(value) -> int:
        return value.id

    def _copy(self, op, mapping, known: set[int], unread: dict[tuple, Any]) -> None:
        """``known``: the numbers of the operations that have been copied. ``unread``: what stands for running
        statistics, by their number and shape."""
        fresh = STATISTICS if op.name() == "pd_op.batch_norm_" and not op.attrs()["is_test"] else ()
        for number, value in enumerate(op.operands_source()):
            if not value.initialized():
                continue
            if number in fresh:
                key = (number, *value.shape)
                if key not in unread:
                    unread[key] = paddle.full(value.shape, 0.0, value.dtype)
                mapping.add(value, unread[key])
            elif self._place_of(value) not in known:
                mapping.add(value, value)
        op.clone(mapping, self._pir.CloneOptions(False, True, True))
        known.add(self._places[op.id()])

    def _is_copied(self, op) -> bool:
        kind = op.name().split(".")[-1].rstrip("_")
        return not op.name().startswith("builtin.parameter") and kind not in (*RANDOM, "data") and not has_blocks(op)

    def _replaced(self, op, segment: range, end: int) -> list:
        """The results of ``op`` that only this segment and gradients read."""
        statistics = STATISTICS if op.name() == "pd_op.batch_norm_" else ()
        results = [value for number, value in enumerate(op.results()) if number not in statistics]
        kept = self._places[op.id()] == segment[-1]
        own = [value for value in results if not kept and value.initialized()]
        return [value for value in own if all(n in segment or n >= end for n in self._readers(value))]

    def _needed(self, ops: list, wanted: set[int]) -> list:
        """Those of ``ops`` that the operations with the numbers ``wanted`` depend on, and these, in their order."""
        found = []
        for op in reversed(ops):
            if self._places[op.id()] in wanted:
                found.append(op)
                sources = [value for value in op.operands_source() if value.initialized()]
                wanted = wanted | {self._place_of(value) for value in sources}
        return found[::-1]

    def _later(self, value, end: int) -> bool:
        return any(number >= end for number in self._readers(value))

    def _readers(self, value) -> list[int]:
        return [self._places[op.id()] for op in value.all_used_ops() if op.id() in self._places]

    def _place_of(self, value) -> int:
        return self._places.get(value.get_defining_op().id(), -1)
