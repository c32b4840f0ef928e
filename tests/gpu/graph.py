"""A legacy program (Paddle 2.6) read as a graph: who wrote the value that an operation reads, and what it depends on.

A variable may be written several times, so a value is (variable name, operation that wrote it). Nothing is inferred
from names, except that Paddle calls the gradient output of slot ``X`` of a ``*_grad`` operation ``X@GRAD``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COLLECTIVES = ("c_", "broadcast", "all_reduce", "all_gather", "barrier", "send_v2", "recv_v2", "partial_", "alltoall")
PASSES_GRADIENTS = ("cast", "reshape2", "assign")  # operations that hand on a gradient with all its numbers


@dataclass(frozen=True)
class Op:
    """One operation: its place in the program, kind, variables by slot."""

    index: int
    kind: str
    inputs: dict
    outputs: dict
    desc: Any
    branch: int | None = None  # the index of the operation that decides whether this one runs

    def attr(self, name: str):
        return self.desc.attr(name)

    def input(self, slot: str) -> str:
        (name,) = self.inputs[slot]
        return name

    def output(self, slot: str) -> str:
        (name,) = self.outputs[slot]
        return name

    @property
    def reads(self) -> list:
        return [name for names in self.inputs.values() for name in names]

    @property
    def writes(self) -> list:
        return [name for names in self.outputs.values() for name in names]


class Graph:
    """The operations of ``program``, those of a branch in the place behind the operation that decides on it."""

    def __init__(self, program):
        self.block = program.global_block()
        self.ops: list[Op] = []
        for op in self.block.ops:
            self.ops.append(self._read(len(self.ops), op))
            if op.has_attr("sub_block"):
                assert op.type == "conditional_block", "the program has loops"
                self._read_branch(program.block(op._block_attr_id("sub_block")))
        self._branches = program.blocks[1:]
        self._writers: dict[str, list[int]] = {}
        for op in self.ops:
            for name in op.writes:
                self._writers.setdefault(name, []).append(op.index)
        self._sources = [{w.index for w in (self.writer(name, op) for name in op.reads) if w} for op in self.ops]

    def _read_branch(self, block) -> None:
        decides = self.ops[-1].index
        for op in block.ops:
            assert not op.has_attr("sub_block"), "a branch in a branch"
            self.ops.append(self._read(len(self.ops), op, decides))

    @staticmethod
    def _read(index: int, op, branch: int | None = None) -> Op:
        """What a branch as a whole reads and writes is what its operations do."""
        is_branch = op.type == "conditional_block"
        slots = ["Cond"] if is_branch else op.input_names
        inputs = {slot: list(op.input(slot)) for slot in slots if op.input(slot)}
        outputs = {slot: list(op.output(slot)) for slot in op.output_names if op.output(slot) and not is_branch}
        return Op(index, op.type, inputs, outputs, op, branch)

    def var(self, name: str):
        """The variable ``name`` of the program, or of its branches."""
        found = [block.vars[name] for block in (self.block, *self._branches) if name in block.vars]
        assert len({value.block.idx for value in found}) == 1, f"{len(found)} variables {name}"
        return found[0]

    def of_kind(self, *kinds: str) -> list[Op]:
        return [op for op in self.ops if op.kind in kinds]

    def one(self, kind: str) -> Op:
        found = self.of_kind(kind)
        assert len(found) == 1, f"{len(found)} operations {kind}, one expected"
        return found[0]

    def collectives(self) -> list[Op]:
        return [op for op in self.ops if op.kind.startswith(COLLECTIVES)]

    def shape(self, name: str) -> list[int]:
        return list(self.var(name).shape)

    def dtype(self, name: str) -> str:
        return str(self.var(name).dtype).rsplit(".", 1)[-1]

    def writer(self, name: str, before: Op) -> Op | None:
        """The operation whose output ``before`` reads as ``name``; None for feeds and what earlier steps left."""
        earlier = [index for index in self._writers.get(name, []) if index < before.index]
        return self.ops[earlier[-1]] if earlier else None

    def upstream(self, op: Op, names: list | None = None) -> set[int]:
        """Indices of all operations on which ``op`` (or the inputs ``names`` of it) depends."""
        writers = (self.writer(name, op) for name in (op.reads if names is None else names))
        seen, waiting = set(), [writer.index for writer in writers if writer]
        while waiting:
            index = waiting.pop()
            if index not in seen:
                seen.add(index)
                waiting.extend(self._sources[index])
        return seen

    def downstream(self, op: Op) -> set[int]:
        """Indices of all operations that depend on ``op``."""
        found = {op.index}
        for later in self.ops[op.index + 1 :]:
            if not found.isdisjoint(self._sources[later.index]):
                found.add(later.index)
        return found - {op.index}

    def gradient_of(self, name: str, reader: Op) -> str:
        """The variable of which ``name``, as ``reader`` sees it, is the gradient, found through the operations."""
        op = self.writer(name, reader)
        assert op is not None, f"{name} is not computed"
        if op.kind in PASSES_GRADIENTS:
            return self.gradient_of(op.input("X"), op)
        if op.kind in ("sum", "elementwise_add"):  # of the uses of a variable, of micro-batches
            (variable,) = {self.gradient_of(part, op) for part in op.reads}
            return variable
        if op.kind == "reduce_sum":
            return self._slope_of(op)
        assert op.kind.endswith("_grad"), f"{name} is made by {op.kind}, which is no gradient operation"
        for slot, names in op.outputs.items():
            if name in names:
                variable = op.inputs[slot[: -len("@GRAD")]][names.index(name)]
                return self.before_cast(variable, op)
        raise AssertionError(f"{name} is not an output of {op.kind}")

    def _slope_of(self, total: Op) -> str:
        """The slope of PReLU of which ``total`` sums min(x, 0) * dout."""
        product = self.writer(total.input("X"), total)
        assert product.kind == "elementwise_mul", f"the sum of {product.kind} is no gradient"
        least = self.writer(product.input("X"), product)
        zero = self.writer(least.input("Y"), least)
        assert (least.kind, zero.kind, zero.attr("value")) == ("elementwise_min", "fill_constant", 0.0)
        read = least.input("X"), product.input("Y")
        (of,) = (op for op in self.of_kind("prelu_grad") if (op.input("X"), op.input("Out@GRAD")) == read)
        for name in read:
            of_kernel, of_sum = self.writer(name, of), self.writer(name, total)
            assert of_kernel is of_sum, f"another {name}"
        return self.before_cast(of.input("Alpha"), of)

    def before_cast(self, name: str, reader: Op) -> str:
        """What a half-precision copy was made of: the gradient of the copy is cast and is that of the original."""
        op = self.writer(name, reader)
        if op is not None and op.kind == "cast" and self.var(op.input("X")).persistable:
            return op.input("X")
        return name


@dataclass(frozen=True)
class Chain:
    """A gradient followed from its reader back to ``source`` (an operation and its output).

    ``factors`` are the operations on the way that change numbers, from the source on.
    """

    source: Op
    output: str
    factors: list


# which input of an operation is the gradient that it changes, the others being factors and conditions
MAIN_INPUT = {"elementwise_mul": "X", "elementwise_div": "X", "scale": "X", "where": "Y", "cast": "X", "reshape2": "X",
              "c_allreduce_sum": "X", "assign": "X", "clip": "X"}  # fmt: skip
IN_PLACE_LISTS = {"check_finite_and_unscale": ("X", "Out")}  # of several gradients each


def follow_back(graph: Graph, name: str, reader: Op, until) -> Chain:
    """Follow the gradient ``name``, read by ``reader``, back to the operation for which ``until(op)`` is true."""
    factors: list[Op] = []
    op = graph.writer(name, reader)
    while True:
        assert op is not None, f"{name} is read by {reader.kind} and comes from nowhere"
        if until(op):
            return Chain(op, name, factors[::-1])
        assert op.kind in MAIN_INPUT or op.kind in IN_PLACE_LISTS, f"{op.kind} between a gradient and {reader.kind}"
        if op.kind not in PASSES_GRADIENTS:
            factors.append(op)
        if op.kind in IN_PLACE_LISTS:
            read, made = IN_PLACE_LISTS[op.kind]
            name = op.inputs[read][op.outputs[made].index(name)]
        else:
            name = op.input(MAIN_INPUT[op.kind])
        op = graph.writer(name, op)
