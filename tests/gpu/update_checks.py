"""What a training program must say from the gradients to the updates. Each check is one claim."""

from __future__ import annotations

import math

from plsc.compat import RING
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


def check_one_all_reduce_of_the_backbone(b: Built) -> None:
    """One sum carries every parameter's gradient once; the rest is the running statistics and the wish to stop."""
    (op,) = backbone_reductions(b)
    assert (op.attr("ring_id"), op.attr("use_calc_stream")) == (RING, True)
    assert len(b.backbone) > 50 and sorted(carried_parameters(b, op)) == sorted(b.backbone)
    concat = b.graph.writer(op.input("X"), op)
    assert len(b.graph.shape(concat.output("Out"))) == 1
    rest = []
    for name in concat.inputs["X"][len(b.backbone) :]:
        source = b.graph.writer(name, concat).input("X")
        rest.append(source)
    *statistics, last = rest
    assert last == "stop"
    for name in statistics:
        assert b.graph.block.var(name).persistable and not b.graph.block.var(name).trainable, name
    assert len(statistics) == 2 * len(b.graph.of_kind("batch_norm")), "not every running mean and variance"
    sizes = [math.prod(b.graph.shape(name)) for name in carried_parameters(b, op) + rest]
    assert b.graph.shape(concat.output("Out")) == [sum(sizes)]


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
    accuracy = (3 if case.model_parallel else 2) if case.calc_acc else 0
    loss = 0 if case.model_parallel else 1
    own = 1 if case.model_parallel and not case.calc_acc else 0  # the target's cosine, which nothing reads then
    assert len(small) == norms + accuracy + loss + own, batch


def is_rows_gradient(b: Built, op: Op) -> bool:
    chain = rows_chain(b)
    return op in chain.factors or op.input("X") == chain.output


def check_nothing_else_communicates(b: Built) -> None:
    """No broadcast, of the shard or of anything, in either program; none at all in the startup program."""
    kinds = {op.kind for op in b.graph.collectives()}
    allowed = {"c_allgather", "c_allreduce_sum", "c_reducescatter"} | ({"c_allreduce_max"} if b.case.half else set())
    assert kinds <= allowed, kinds - allowed
    startup = [op.type for op in b.program.startup.global_block().ops]
    assert not [kind for kind in startup if kind.startswith(("c_", "broadcast", "all"))], startup


def backbone_chain(b: Built, op: Op) -> Chain:
    """From the momentum operation ``op`` of the backbone back to the pieces of the all-reduced buffer."""
    return follow_back(b.graph, op.input("Grad"), op, lambda source: source.kind == "split")


def rows_gradient(b: Built) -> tuple[str, Op]:
    """The gradient of the rows where the update reads it: (variable, reader)."""
    graph = b.graph
    if not b.case.sampled:
        (op,) = (op for op in graph.of_kind("momentum") if op.input("Param") == b.weight)
        return op.input("Grad"), op
    (write,) = (op for op in graph.of_kind("scatter") if op.input("X") == b.velocity)
    velocity = graph.writer(write.input("Updates"), write)
    inner = graph.writer(velocity.input("Y"), velocity)  # gradient + weight_decay * weight
    assert velocity.kind == inner.kind == "elementwise_add"
    return inner.input("X"), inner


def rows_chain(b: Built) -> Chain:
    """From the update of the rows back to the backward pass of the head."""
    name, reader = rows_gradient(b)
    return follow_back(b.graph, name, reader, lambda op: op.kind == "sum" or op.kind.endswith("_grad"))


def check_each_parameter_gets_its_own_gradient(b: Built) -> None:
    """Every backbone parameter has one update, fed by the piece of the buffer that holds its own gradient."""
    updates = [op for op in b.graph.of_kind("momentum") if op.input("Param") != b.weight]
    assert sorted(op.input("Param") for op in updates) == sorted(b.backbone)
    (reduction,) = backbone_reductions(b)
    order = carried_parameters(b, reduction)
    for op in updates:
        chain = backbone_chain(b, op)
        assert b.graph.writer(chain.source.input("X"), chain.source) == reduction
        piece = chain.source.outputs["Out"].index(chain.output)
        assert order[piece] == op.input("Param"), f"{op.input('Param')} gets the gradient of {order[piece]}"
        assert (op.output("ParamOut"), op.output("VelocityOut")) == (op.input("Param"), op.input("Velocity"))


def check_rows_gradient_is_that_of_the_rows(b: Built) -> None:
    chain = rows_chain(b)
    rows = b.graph.gradient_of(chain.output, b.graph.ops[-1])
    if b.case.sampled:
        (write,) = (op for op in b.graph.of_kind("scatter") if op.input("X") == b.weight)
        step = b.graph.writer(write.input("Updates"), write)  # rows - learning_rate * velocity
        assert step.kind == "elementwise_sub" and rows == step.input("X"), "not the rows that are moved"
        gather = [op for op in b.graph.of_kind("gather") if op.input("X") == b.weight]
        assert len(gather) == 1 and gather[0].index in b.graph.upstream(step, [rows])
    else:
        assert rows == b.weight


def check_gradients_have_no_other_factor(b: Built) -> None:
    """After the backward pass: division by the loss scale, sum over the ranks, clipping, skipping. No number."""
    case = b.case
    for op in [op for op in b.graph.of_kind("momentum") if op.input("Param") != b.weight]:
        kinds = [factor.kind for factor in backbone_chain(b, op).factors]
        assert kinds == ["elementwise_div"] * case.half + ["elementwise_mul"] * bool(case.clip) + ["where"] * case.half
    expected = ["elementwise_div"] * case.half + ["c_allreduce_sum"] * (not case.model_parallel)
    expected += ["elementwise_mul"] * bool(case.clip) + ["where"] * case.half
    assert [factor.kind for factor in rows_chain(b).factors] == expected
    if case.clip:
        check_clipping(b)


def check_clipping(b: Built) -> None:
    """The one clipping factor [1] depends on every gradient and, with split rows, on the other ranks' part."""
    graph = b.graph
    chains = [backbone_chain(b, op) for op in graph.of_kind("momentum") if op.input("Param") != b.weight]
    multiplications = [f for chain in [*chains, rows_chain(b)] for f in chain.factors if f.kind == "elementwise_mul"]
    (factor,) = {op.input("Y") for op in multiplications}
    assert graph.shape(factor) == [1] and len(multiplications) == len(b.backbone) + 1
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
    graph = b.graph
    writers = [op for op in graph.ops if b.weight in op.writes]
    assert [op.kind for op in writers] == (["scatter"] if b.case.sampled else ["momentum"])
    if not b.case.sampled:
        assert writers[0].input("Velocity") == writers[0].output("VelocityOut") == b.velocity
        return
    scatters = {op.output("Out"): op for op in graph.of_kind("scatter") if op.attr("overwrite")}
    assert {b.weight, b.velocity} <= set(scatters)
    assert all(op.input("X") == name for name, op in scatters.items())
    gather = [op for op in graph.of_kind("gather") if op.input("X") == b.weight]
    assert {op.input("Ids") for op in scatters.values()} == {gather[0].input("Index")}


def check_no_dense_gradient(b: Built) -> None:
    """With sampling, no variable but weight and velocity has the shape of the shard."""
    dense = [v.name for v in b.program.main.list_vars() if _shape(v) == b.row_shape]
    if b.case.sampled:
        assert sorted(dense) == sorted([b.weight, b.velocity])


def _shape(variable) -> list[int]:
    try:
        return list(variable.shape)
    except ValueError:  # a variable without a shape: feed and fetch lists
        return []


UPDATE_CHECKS = [
    check_one_all_reduce_of_the_backbone,
    check_no_other_sums,
    check_nothing_else_communicates,
    check_each_parameter_gets_its_own_gradient,
    check_rows_gradient_is_that_of_the_rows,
    check_gradients_have_no_other_factor,
    check_shard_is_updated_in_place,
    check_no_dense_gradient,
]
