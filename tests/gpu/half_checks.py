"""What a training program must say of float16: where it is used, and that one decision holds for all ranks."""

from __future__ import annotations

import paddle
from paddle.base import core

from plsc.backend.collectives import RING
from plsc.engine.program.results import SKIPPED, VARIABLE
from tests.gpu.cases import BATCH, Built, built
from tests.gpu.graph import Op
from tests.gpu.updates import (
    backbone_piece,
    backbone_reductions,
    backbone_updates,
    carried_parameters,
    rows_chain,
    rows_update,
    state_scatters,
)

SCALE = "loss_scaling.scale"


def check_where_half_precision_is(b: Built) -> None:
    graph = b.graph
    found = {name: graph.dtype(name) for op in graph.ops if op.kind != "conditional_block" for name in op.writes}
    half = [name for name, dtype in found.items() if dtype in ("float16", "bfloat16")]
    if not b.case.half:
        assert half == []
        return
    assert {found[name] for name in half} == {b.case.dtype}
    assert not [name for name in half if graph.var(name).persistable], "a state in float16"
    convolutions = graph.of_kind("conv2d")
    assert len(convolutions) > 10
    for op in convolutions:
        assert {graph.dtype(op.input("Input")), graph.dtype(op.input("Filter"))} == {b.case.dtype}
        cast = graph.writer(op.input("Filter"), op)
        assert cast.kind == "cast" and cast.input("X") in b.backbone
    head = head_product(b)
    # 8 bits of a cosine, times the scale of 64, are not enough
    assert {graph.dtype(name) for name in head.reads + head.writes} == {"float16" if b.case.scaled else "float32"}
    assert ({graph.writer(name, head).kind for name in head.reads} == {"cast"}) == b.case.scaled


def check_images_are_not_cast(b: Built) -> None:
    """But where they come in, and at the dropout behind the last layer: norms, PReLU and sums are in half too."""
    graph = b.graph
    if not b.case.half:
        return
    weights = [graph.shape(name) for name in b.backbone]
    values = {op.input("X"): graph.shape(op.input("X")) for op in graph.of_kind("cast")}
    images = [name for name, shape in values.items() if len(shape) == 4 and shape[0] == BATCH and shape not in weights]
    assert len(images) <= 4, images  # pixels, normalized pixels, and two at the dropout
    for op in graph.of_kind("prelu", "prelu_grad", "batch_norm", "batch_norm_grad"):
        assert graph.dtype(op.input("X")) == b.case.dtype


def check_slopes_are_summed_in_float32(b: Built) -> None:
    graph = b.graph
    if not b.case.half:
        return
    slopes = {graph.before_cast(op.input("Alpha"), op) for op in graph.of_kind("prelu")}
    assert len(slopes) > 5
    for reduction in backbone_reductions(b):
        concat = graph.writer(reduction.input("X"), reduction)
        for name, parameter in zip(concat.inputs["X"], carried_parameters(b, reduction)):
            if parameter in slopes:
                flat = graph.writer(name, concat)
                parts = _summands(b, flat.input("X"), flat)
                assert len(parts) == b.case.accumulate
                for shaped in parts:
                    total = graph.writer(shaped.input("X"), shaped)
                    assert total.kind == "reduce_sum", f"{parameter}: {total.kind}"
                    assert graph.dtype(total.output("Out")) == "float32"
                slopes.remove(parameter)
    assert not slopes, "a gradient of a slope is not summed over the ranks"


def _summands(b: Built, name: str, reader: Op) -> list[Op]:
    """The operations whose results are added to ``name``, as ``reader`` sees it; its writer alone if it is no sum."""
    op = b.graph.writer(name, reader)
    return [op] if op.kind != "elementwise_add" else [one for part in op.reads for one in _summands(b, part, op)]


def check_kernels_exist(b: Built) -> None:
    """Of each operation that gets half precision, in this wheel for GPUs."""
    if not b.case.half:
        return
    _, _, missing = core.op_supported_infos("GPU", getattr(paddle, b.case.dtype))
    half = {op.kind for op in b.graph.ops for name in op.reads if b.graph.dtype(name) == b.case.dtype}
    assert len(half) > 10 and half & set(missing) <= {"cast"}, half & set(missing)  # whose type is an attribute


def head_product(b: Built) -> Op:
    """The product of features and rows: the last one before margin_cross_entropy."""
    upstream = b.graph.upstream(b.graph.one("margin_cross_entropy"))
    return b.graph.ops[max(i for i in upstream if b.graph.ops[i].kind in ("matmul_v2", "matmul", "mul"))]


def check_every_gradient_is_unscaled_and_examined(b: Built) -> None:
    """Each is divided by the loss scale once, and what results, sums over ranks included, is looked at."""
    graph = b.graph
    if not b.case.scaled:
        assert graph.of_kind("c_allreduce_max", "isfinite_v2", "check_finite_and_unscale") == []
        return
    unscale, upstream = graph.one("check_finite_and_unscale"), graph.upstream(graph.one("c_allreduce_max"))
    assert unscale.input("Scale") == SCALE and unscale.index in upstream
    for op in backbone_updates(b):
        assert backbone_piece(b, op).factors[0] is unscale
    assert len(unscale.inputs["X"]) == len(backbone_reductions(b))
    rows = rows_chain(b)
    assert [op.input("Y") for op in rows.factors if op.kind == "elementwise_div"] == [SCALE]
    complete = [op for op in rows.factors if op.kind in ("elementwise_div", "c_allreduce_sum")][-1]
    (examined,) = (graph.ops[i].input("X") for i in upstream if graph.ops[i].kind == "isfinite_v2")
    assert complete.output("Out") == examined, "the gradient of the rows is not examined"


def check_found_is_one_decision(b: Built) -> None:
    """All ranks agree before anything moves, and all that moves is in the branch that this decides on."""
    graph = b.graph
    if not b.case.scaled:
        assert graph.of_kind("conditional_block") == []
        return
    found, branch = graph.one("c_allreduce_max"), graph.one("conditional_block")
    assert found.attr("ring_id") == RING and graph.shape(found.input("X")) == [1]
    is_not = graph.writer(branch.input("Cond"), branch)
    is_above = graph.writer(is_not.input("X"), is_not)
    assert (is_not.kind, is_above.kind) == ("logical_not", "greater_than")
    assert graph.writer(is_above.input("X"), is_above) is found, "not all ranks' decision"
    zero = graph.writer(is_above.input("Y"), is_above)
    assert zero.kind == "fill_constant" and zero.attr("value") == 0.0
    updates = graph.of_kind("momentum")
    assert rows_update(b) in updates and len(updates) == len(b.backbone) + 1
    for op in updates + state_scatters(b):
        assert op.branch == branch.index, f"{op.kind} of {op.writes[0]} in a skipped step"
    check_what_moves_outside(b, branch)


def check_what_moves_outside(b: Built, branch: Op) -> None:
    """The statistics, the number of the step, and the loss scale with its counts, after the decision."""
    graph, statistics = b.graph, set()
    for op in graph.of_kind("batch_norm"):
        statistics |= {name for name in (op.input("Mean"), op.input("Variance")) if graph.var(name).persistable}
    written = {name for op in graph.ops if op.branch is None for name in op.writes if graph.var(name).persistable}
    scaling = {name for name in written if name.startswith("loss_scaling.")}
    results = {VARIABLE, SKIPPED} if b.program.rows.touched is not None else {VARIABLE}
    assert len(scaling) == 3 and written == statistics | scaling | results | {"classifier.step"}
    for op in graph.of_kind("assign"):
        assert op.branch is None or op.output("Out") not in statistics | scaling
        if op.output("Out") in scaling:
            assert graph.one("c_allreduce_max").index in graph.upstream(op) and op.index > branch.index


def check_costs_a_few_operations(b: Built) -> None:
    """Besides casts and the sums of slopes a number that does not grow with that of the parameters."""
    if b.case.half:
        others = [sum(op.kind != "cast" for op in graph.ops) for graph in (b.graph, built(b.case.in_float32).graph)]
        of_parts = 10 * (b.case.accumulate - 1)
        assert others[0] - others[1] - 5 * len(b.graph.of_kind("prelu")) - of_parts < 50 < len(b.backbone)


HALF_CHECKS = [
    check_images_are_not_cast,
    check_slopes_are_summed_in_float32,
    check_kernels_exist,
    check_where_half_precision_is,
    check_every_gradient_is_unscaled_and_examined,
    check_found_is_one_decision,
    check_costs_a_few_operations,
]
