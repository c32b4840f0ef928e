"""Where a training program moves its variables, and from where the gradients come: found through the graph."""

from __future__ import annotations

from dataclasses import dataclass

from tests.gpu.cases import Built
from tests.gpu.graph import Chain, Op, follow_back


def backbone_reductions(b: Built) -> list[Op]:
    """The sums over the ranks that carry a gradient of a backbone parameter, found through the graph."""
    return [op for op in b.graph.of_kind("c_allreduce_sum") if carried_parameters(b, op)]


def carried_parameters(b: Built, op: Op) -> list[str]:
    """The backbone parameters whose gradients are, in this order, the input of ``op``, possibly laid end to end."""
    writer = b.graph.writer(op.input("X"), op)
    names, reader = (writer.inputs["X"], writer) if writer and writer.kind == "concat" else ([op.input("X")], op)
    found = []
    for name in names:
        try:
            found.append(b.graph.gradient_of(name, reader))
        except AssertionError:
            continue  # not a gradient: a statistic, or a count
    return [name for name in found if name in b.backbone]


@dataclass(frozen=True)
class Piece:
    """A gradient of the backbone, from the sum over the ranks to its update: ``position`` in the buffer of the sum, and
    the operations in between that change numbers."""

    reduction: Op
    position: int
    factors: list


def backbone_piece(b: Built, op: Op) -> Piece:
    """What the momentum operation ``op`` of the backbone moves its parameter by."""
    graph, apart = b.graph, follow_back(b.graph, op.input("Grad"), op, lambda source: source.kind == "split")
    split = apart.source
    position = split.outputs["Out"].index(apart.output)
    buffer = follow_back(graph, split.input("X"), split, lambda source: source.kind in ("split", "c_allreduce_sum"))
    reduction = buffer.source
    if reduction.kind == "split":  # the last buffer ends with statistics
        assert reduction.outputs["Out"].index(buffer.output) == 0
        reduction = graph.writer(reduction.input("X"), reduction)
    return Piece(reduction, position, buffer.factors + apart.factors)


def rows_update(b: Built) -> Op:
    """The momentum operation that moves the rows: all of them in their place, or the sampled ones before they are
    written back, found from what is written."""
    graph = b.graph
    if not b.case.sampled:
        (op,) = (op for op in graph.of_kind("momentum") if op.input("Param") == b.weight)
        return op
    (write,) = (op for op in graph.of_kind("scatter") if op.input("X") == b.weight)
    op = graph.writer(write.input("Updates"), write)
    assert op.kind == "momentum", f"{op.kind} makes the rows that are written, not momentum"
    return op


def backbone_updates(b: Built) -> list[Op]:
    """The momentum operations of the backbone: all but that of the rows."""
    rows = rows_update(b)
    return [op for op in b.graph.of_kind("momentum") if op is not rows]


def state_scatters(b: Built) -> list[Op]:
    """The scatters that write a state; the sampling has one of its own, into a value of the step."""
    return [op for op in b.graph.of_kind("scatter") if b.graph.var(op.output("Out")).persistable]


def row_reads(b: Built, table: str) -> list[tuple[Op, str]]:
    """(operation, index) for each one that copies rows out of a state; nothing else than these and the update may
    read it."""
    index_slot = {"gather": "Index", "lookup_table_v2": "Ids"}
    readers = [op for op in b.graph.ops if table in op.reads and op.kind != "scatter"]
    assert {op.kind for op in readers} <= set(index_slot), f"{table} is read by {[op.kind for op in readers]}"
    return [(op, op.input(index_slot[op.kind])) for op in readers]


def one_read(b: Built, table: str) -> Op:
    ((op, _),) = row_reads(b, table)
    return op


def rows_chain(b: Built) -> Chain:
    """From the update of the rows back to the backward pass of the head."""
    update = rows_update(b)
    return follow_back(b.graph, update.input("Grad"), update, lambda op: op.kind == "sum" or op.kind.endswith("_grad"))
