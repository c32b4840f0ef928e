"""What a training program must say of float16: where it is used, and that one decision holds for all ranks."""

from __future__ import annotations

import math

from plsc.backend.collectives import RING
from tests.gpu.cases import Built
from tests.gpu.graph import Op, follow_back
from tests.gpu.updates import backbone_chain, backbone_updates, rows_chain, rows_update, state_scatters

SCALE = "loss_scaling.scale"


def check_where_half_precision_is(b: Built) -> None:
    graph = b.graph
    half = [name for op in graph.ops for name in op.writes if graph.dtype(name) == "float16"]
    if not b.case.half:
        assert half == []
        return
    assert not [name for name in half if graph.block.var(name).persistable], "a state in float16"
    convolutions = graph.of_kind("conv2d")
    assert len(convolutions) > 10
    for op in convolutions:
        assert {graph.dtype(op.input("Input")), graph.dtype(op.input("Filter"))} == {"float16"}
        cast = graph.writer(op.input("Filter"), op)
        assert cast.kind == "cast" and cast.input("X") in b.backbone
    head = head_product(b)
    assert {graph.dtype(name) for name in head.reads + head.writes} == {"float16"}
    assert {graph.writer(name, head).kind for name in head.reads} == {"cast"}


def head_product(b: Built) -> Op:
    """The product of features and rows: the last one before margin_cross_entropy."""
    upstream = b.graph.upstream(b.graph.one("margin_cross_entropy"))
    return b.graph.ops[max(i for i in upstream if b.graph.ops[i].kind in ("matmul_v2", "matmul", "mul"))]


def check_every_gradient_is_unscaled_and_examined(b: Built) -> None:
    """Each is divided by the loss scale once, and what results, sums over ranks included, is looked at."""
    graph = b.graph
    if not b.case.half:
        assert graph.of_kind("c_allreduce_max", "isfinite_v2") == []
        return
    chains = [*(backbone_chain(b, op) for op in backbone_updates(b)), rows_chain(b)]
    found = graph.one("c_allreduce_max")
    upstream = graph.upstream(found)
    examined = {graph.ops[i].input("X") for i in upstream if graph.ops[i].kind == "isfinite_v2"}
    for chain in chains:
        divisions = [op for op in chain.factors if op.kind == "elementwise_div"]
        assert [op.input("Y") for op in divisions] == [SCALE]
        complete = [op for op in chain.factors if op.kind in ("elementwise_div", "c_allreduce_sum")][-1]
        assert complete.output("Out") in examined, "a gradient is not examined"
    assert len(examined) == len(chains) == len(b.backbone) + 1


def check_found_is_one_decision(b: Built) -> None:
    """All ranks agree before anything moves, and everything that moves depends on it."""
    graph = b.graph
    if not b.case.half:
        return
    found = graph.one("c_allreduce_max")
    assert found.attr("ring_id") == RING and graph.shape(found.input("X")) == [1]
    updates = graph.of_kind("momentum")
    states = [op for op in graph.of_kind("assign") if op.output("Out").startswith("loss_scaling.")]
    assert len(states) == 3
    assert rows_update(b) in updates and len(updates) == len(b.backbone) + 1
    for op in updates + state_scatters(b) + states:
        assert op.index > found.index, f"{op.kind} of {op.writes[0]} before the decision"
    for op in updates:
        assert found.index in graph.upstream(op, [op.input("LearningRate")]), "the rate of a skipped step is not 0"
        assert_stands_still(b, op, found)
    for op in state_scatters(b):
        assert found.index in graph.upstream(op) or op.output("Out") == b.program.rows.touched


def assert_stands_still(b: Built, update: Op, found: Op) -> None:
    """The gradient is chosen by the decision that all ranks share: else (1 - mu) * velocity - decay * parameter, of the
    very values that are moved, with which the velocity stays."""
    graph = b.graph
    choice = follow_back(graph, update.input("Grad"), update, lambda op: op.kind == "where").source
    assert found.index in graph.upstream(choice, [choice.input("Condition")]), "not all ranks' decision"
    difference = graph.writer(choice.input("X"), choice)
    assert difference.kind == "elementwise_sub"
    terms = (("X", "Velocity", 1.0 - update.attr("mu")), ("Y", "Param", update.attr("regularization_coeff")))
    for side, slot, factor in terms:
        term = graph.writer(difference.input(side), difference)
        assert term.kind == "scale" and term.attr("bias") == 0.0 and term.input("X") == update.input(slot)
        assert graph.writer(update.input(slot), term) is graph.writer(update.input(slot), update), "of another moment"
        assert math.isclose(term.attr("scale"), factor, rel_tol=1e-6)  # float32 attributes


HALF_CHECKS = [
    check_where_half_precision_is,
    check_every_gradient_is_unscaled_and_examined,
    check_found_is_one_decision,
]
