"""What a training program must say of float16: where it is used, and that one decision holds for all ranks."""

from __future__ import annotations

from plsc.compat import RING
from tests.gpu.cases import Built
from tests.gpu.graph import Op, follow_back
from tests.gpu.update_checks import backbone_chain, rows_chain, rows_gradient

UPDATES = ("momentum", "scatter")
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
    updates = [op for op in graph.of_kind("momentum") if op.input("Param") != b.weight]
    chains = [*(backbone_chain(b, op) for op in updates), rows_chain(b)]
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
    updates = [op for op in graph.ops if op.kind in UPDATES]
    states = [op for op in graph.of_kind("assign") if op.output("Out").startswith("loss_scaling.")]
    assert len(states) == 3
    for op in updates + states:
        assert op.index > found.index, f"{op.kind} of {op.writes[0]} before the decision"
    for op in updates:
        if "Grad" in op.inputs:
            assert found.index in graph.upstream(op, [op.input("LearningRate")]), "the rate of a skipped step is not 0"
            assert_stands_still(b, op.input("Grad"), op, found)
    (weight,) = (op for op in updates if b.weight in op.writes)
    assert found.index in graph.upstream(weight)
    assert_stands_still(b, *rows_gradient(b), found)


def assert_stands_still(b: Built, name: str, reader: Op, found: Op) -> None:
    """The gradient is chosen by the decision that all ranks share."""
    choice = follow_back(b.graph, name, reader, lambda op: op.kind == "where").source
    assert found.index in b.graph.upstream(choice, [choice.input("Condition")]), "not all ranks' decision"


HALF_CHECKS = [
    check_where_half_precision_is,
    check_every_gradient_is_unscaled_and_examined,
    check_found_is_one_decision,
]
