"""What a training program must say from the gradients to the updates. Each check is one claim."""

from __future__ import annotations

import math

from plsc.backend.collectives import RING, STREAM
from tests.gpu.cases import Built
from tests.gpu.graph import Op
from tests.gpu.updates import (
    backbone_piece,
    backbone_reductions,
    backbone_updates,
    carried_parameters,
    one_read,
    row_reads,
    rows_chain,
    rows_update,
    state_scatters,
)


def check_all_reduces_of_the_backbone(b: Built) -> None:
    """The sums of the buckets carry every parameter's gradient once, laid end to end; the last one also carries the
    running statistics and the wish to stop."""
    reductions = backbone_reductions(b)
    carried = [name for op in reductions for name in carried_parameters(b, op)]
    assert len(reductions) > 3 and len(b.backbone) > 50 and sorted(carried) == sorted(b.backbone)
    for op in reductions:
        assert (op.attr("ring_id"), op.attr("use_calc_stream")) == (RING, True)
        concat, rest = b.graph.writer(op.input("X"), op), []
        assert concat.kind == "concat", f"{concat.kind}, not a flat buffer"
        for name in concat.inputs["X"][len(carried_parameters(b, op)) :]:
            rest.append(b.graph.writer(name, concat).input("X"))
        sizes = [math.prod(b.graph.shape(name)) for name in carried_parameters(b, op) + rest]
        assert b.graph.shape(concat.output("Out")) == [sum(sizes)]
        if op is not reductions[-1]:
            assert rest == []
    *statistics, last = rest
    assert last == "stop"
    for name in statistics:
        assert b.graph.var(name).persistable and not b.graph.var(name).trainable, name
    running = {op.output(slot) for op in b.graph.of_kind("batch_norm") for slot in ("MeanOut", "VarianceOut")}
    running = {name for name in running if b.graph.var(name).persistable}
    assert sorted(statistics) == sorted(running), "not every running mean and variance"


def check_sums_run_beside_the_backward_pass(b: Built) -> None:
    """Each sum stands behind the last of its gradients, before the backward pass of the layers below, on a stream of
    its own; no other operation is on it, and what waits for a sum stands behind the whole backward pass."""
    graph, reductions = b.graph, backbone_reductions(b)
    made = []
    for op in reductions:
        settings = op.desc.dist_attr
        assert (settings.execution_stream, settings.scheduling_priority) == (STREAM, 0)
        concat = graph.writer(op.input("X"), op)
        copies = [graph.writer(name, concat) for name in concat.inputs["X"]]
        gradients = [graph.writer(copy.input("X"), copy) for copy in copies[: len(carried_parameters(b, op))]]
        made.append(max(writer.index for writer in gradients))
        between = {other.kind for other in graph.ops[made[-1] + 1 : op.index]}
        assert between <= {"reshape2", "concat"}, between
        assert op.output("Out") == op.input("X"), "the sum takes memory of the stream that computes"
    for op, following in zip(reductions, made[1:]):
        assert op.index < following
    reads = [(op, other) for op in reductions for other in graph.ops if op.output("Out") in other.reads]
    readers = [(op.index, other.index) for op, other in reads if other is not op]
    assert len({op for op, _ in readers}) == len(reductions) and min(other for _, other in readers) > made[-1]
    others = [op for op in graph.ops if op not in reductions]
    assert not [op.kind for op in others if op.desc.dist_attr.execution_stream == STREAM]


def check_no_other_sums(b: Built) -> None:
    """The remaining sums: norms [1], accuracies over the batch, and with data-parallel rows the rows' gradient."""
    case, graph = b.case, b.graph
    others = [op for op in graph.of_kind("c_allreduce_sum") if op not in backbone_reductions(b)]
    rows = [op for op in others if is_rows_gradient(b, op)]
    assert len(rows) == (0 if case.model_parallel else 1), f"{len(rows)} sums of the rows' gradient over the ranks"
    small = [op for op in others if op not in rows]
    batch = [graph.shape(op.input("X")) for op in small]
    assert all(len(shape) == 1 and 0 < shape[0] <= 32 for shape in batch), batch
    norms = 1 if case.clip and case.model_parallel else 0
    accuracy = 2 if case.calc_acc else 0
    loss = 0 if case.model_parallel else 1
    assert len(small) == norms + accuracy + loss, batch


def is_rows_gradient(b: Built, op: Op) -> bool:
    chain = rows_chain(b)
    return op in chain.factors or op.input("X") == chain.output


def check_nothing_else_communicates(b: Built) -> None:
    """No broadcast, of the shard or of anything, in either program; none at all in the startup program."""
    kinds = {op.kind for op in b.graph.collectives()}
    allowed = {"c_allgather", "c_allreduce_sum", "c_reducescatter"} | ({"c_allreduce_max"} if b.case.scaled else set())
    assert kinds <= allowed, kinds - allowed
    startup = [op.type for op in b.program.startup.global_block().ops]
    assert not [kind for kind in startup if kind.startswith(("c_", "broadcast", "all"))], startup


def check_each_parameter_gets_its_own_gradient(b: Built) -> None:
    """Every backbone parameter has one update, fed by the piece of a bucket that holds its own gradient."""
    updates = backbone_updates(b)
    assert sorted(op.input("Param") for op in updates) == sorted(b.backbone)
    reductions = backbone_reductions(b)
    for op in updates:
        piece = backbone_piece(b, op)
        assert piece.reduction in reductions
        of = carried_parameters(b, piece.reduction)[piece.position]
        assert of == op.input("Param"), f"{op.input('Param')} gets the gradient of {of}"
        assert (op.output("ParamOut"), op.output("VelocityOut")) == (op.input("Param"), op.input("Velocity"))


def check_rows_gradient_is_that_of_the_rows(b: Built) -> None:
    """What is moved is what the loss was differentiated by, with the velocity that belongs to it."""
    graph, update = b.graph, rows_update(b)
    rows = graph.gradient_of(rows_chain(b).output, graph.ops[-1])
    assert rows == update.input("Param"), "not the rows that are moved"
    if not b.case.sampled:
        assert (rows, update.input("Velocity")) == (b.weight, b.velocity)
        return
    kernel = graph.one("margin_cross_entropy")
    states = (b.weight, b.velocity, b.program.rows.touched)
    read_weight, read_velocity, read_touched = (one_read(b, name) for name in states)
    # each brought up to date from both, once, before the head reads the rows: what is stored is not kept any longer
    for slot in ("Param", "Velocity"):
        made = graph.writer(update.input(slot), update)
        assert made.kind == "elementwise_add"
        assert [graph.shape(name) for name in made.reads] == [[b.num_rows, b.row_shape[1]]] * 2
        upstream = graph.upstream(made)
        assert {read_weight.index, read_velocity.index, read_touched.index} <= upstream and made.index < kernel.index
        assert any("row_table" in graph.ops[i].reads for i in upstream), "not by what the steps between did"
    assert graph.writer(update.input("Param"), update).index in graph.upstream(kernel), "the loss sees other rows"


def check_updates_are_momentum(b: Built) -> None:
    """Every update is the configured one, and its rate is what is fed, without a factor."""
    config = b.case.config()
    for op in [*backbone_updates(b), rows_update(b)]:
        assert math.isclose(op.attr("mu"), config.momentum, rel_tol=1e-6), op.attr("mu")  # attributes are float32
        assert math.isclose(op.attr("regularization_coeff"), config.weight_decay, rel_tol=1e-6)
        assert (op.attr("regularization_method"), op.attr("use_nesterov")) == ("l2_decay", False)
        rate = op.input("LearningRate")
        assert rate == "learning_rate" and b.graph.writer(rate, op) is None


def check_gradients_have_no_other_factor(b: Built) -> None:
    """After the backward pass: division by the loss scale, sum over the ranks, clipping. No number."""
    case = b.case
    for op in backbone_updates(b):
        kinds = [factor.kind for factor in backbone_piece(b, op).factors]
        assert kinds == ["check_finite_and_unscale"] * case.scaled + ["elementwise_mul"] * bool(case.clip)
    expected = ["elementwise_div"] * case.scaled + ["c_allreduce_sum"] * (not case.model_parallel)
    expected += ["elementwise_mul"] * bool(case.clip)
    assert [factor.kind for factor in rows_chain(b).factors] == expected
    if case.clip:
        check_clipping(b)


def check_clipping(b: Built) -> None:
    """The one clipping factor [1] depends on every gradient and, with split rows, on the other ranks' part."""
    graph = b.graph
    chains = [*(backbone_piece(b, op) for op in backbone_updates(b)), rows_chain(b)]
    factors = {f.index: f for chain in chains for f in chain.factors if f.kind == "elementwise_mul"}
    multiplications = list(factors.values())  # one for each buffer, and that of the rows
    (factor,) = {op.input("Y") for op in multiplications}
    assert graph.shape(factor) == [1] and len(multiplications) == len(backbone_reductions(b)) + 1
    upstream = graph.upstream(multiplications[0], [factor])
    squares = [graph.ops[i] for i in upstream if graph.ops[i].kind == "elementwise_mul"]
    squared = {op.input("X") for op in squares if op.input("X") == op.input("Y")}
    assert {op.input("X") for op in multiplications} <= squared, "a gradient is missing in the norm"
    (rows_factor,) = (f for f in rows_chain(b).factors if f.kind == "elementwise_mul")
    (square,) = (op for op in squares if op.input("X") == op.input("Y") == rows_factor.input("X"))
    sums = [graph.ops[i] for i in upstream if graph.ops[i].kind == "c_allreduce_sum" and i > square.index]
    assert len(sums) == (1 if b.case.model_parallel else 0), "the norm of the rows over the ranks"
    for op in sums:
        assert square.index in graph.upstream(op) and graph.shape(op.input("X")) == [1]
        later = [op2.index for op2 in squares if op2 is not square and op2.index in graph.upstream(op)]
        assert not (set(later) & {s.index for s in squares if s.input("X") in {m.input("X") for m in multiplications}})


def check_shard_is_updated_in_place(b: Built) -> None:
    """Weight and velocity are written once, where they are: by the update, or by scatters of what it has moved."""
    graph, update = b.graph, rows_update(b)
    for slot in ("Param", "Velocity"):
        assert update.input(slot) == update.output(slot + "Out"), "moved into a copy"
    touched = [b.program.rows.touched] if b.case.sampled else []
    for name in (b.weight, b.velocity, *touched):
        kinds = [op.kind for op in graph.ops if name in op.writes]
        assert kinds == (["scatter"] if b.case.sampled else ["momentum"]), f"{name} is written by {kinds}"
    if not b.case.sampled:
        return
    scatters = {op.output("Out"): op for op in state_scatters(b)}
    assert set(scatters) == {b.weight, b.velocity, *touched}
    assert all(op.input("X") == name and op.attr("overwrite") for name, op in scatters.items())
    ids = [op.input("Ids") for op in scatters.values()]
    ids += [index for name in scatters for _, index in row_reads(b, name)]
    assert len(ids) == 6 and len(set(ids)) == 1, "other rows are written than are read"
    check_rows_are_up_to_date_after_the_step(b, scatters[b.program.rows.touched])
    for slot, name in (("Param", b.weight), ("Velocity", b.velocity)):
        moved = scatters[name].input("Updates")
        assert moved == update.output(slot + "Out") and graph.writer(moved, scatters[name]) is update
        # nothing else may read, or write, what was moved in place
        later = [op for op in graph.ops[update.index + 1 :] if moved in op.reads + op.writes]
        assert later == [scatters[name]], "read after it was moved"


def check_rows_are_up_to_date_after_the_step(b: Built, scatter: Op) -> None:
    """Each is given the number of the step after this one: zeros, as many as there are rows, plus that."""
    shaped = b.graph.writer(scatter.input("Updates"), scatter)
    total = b.graph.writer(shaped.input("X"), shaped)
    zeros, op = (b.graph.writer(total.input(slot), total) for slot in ("X", "Y"))
    assert (shaped.kind, total.kind, zeros.kind) == ("reshape2", "elementwise_add", "fill_any_like")
    assert zeros.attr("value") == 0.0 and zeros.input("X") == scatter.input("Ids")
    assert (op.kind, op.input("X"), op.attr("scale"), op.attr("bias")) == ("scale", "window_step", 1.0, 1.0)


def check_no_dense_gradient(b: Built) -> None:
    """With sampling, no variable but weight and velocity has the shape of the shard."""
    dense = [v.name for v in b.program.main.list_vars() if _shape(v) == b.row_shape]
    if b.case.sampled:
        assert sorted(dense) == sorted([b.weight, b.velocity])


def _shape(variable) -> list[int]:
    try:
        return list(variable.shape)
    except (ValueError, RuntimeError):  # a variable without a shape: feed and fetch lists, the scope of a branch
        return []


UPDATE_CHECKS = [
    check_all_reduces_of_the_backbone,
    check_sums_run_beside_the_backward_pass,
    check_no_other_sums,
    check_nothing_else_communicates,
    check_each_parameter_gets_its_own_gradient,
    check_rows_gradient_is_that_of_the_rows,
    check_updates_are_momentum,
    check_gradients_have_no_other_factor,
    check_shard_is_updated_in_place,
    check_no_dense_gradient,
]
