"""What a training program must say from the features to the gradient that leaves the head. Each check is one claim."""

from __future__ import annotations

import math

from plsc.backend.collectives import RING
from tests.gpu.cases import BATCH, GLOBAL_BATCH, WORLD, Built
from tests.gpu.graph import Op
from tests.gpu.updates import backbone_reductions, row_reads


def gathers(b: Built) -> dict[str, Op]:
    """The all-gathers by what they carry: ``feature`` (made by convolutions), ``count`` of sampled rows, ``label``."""
    found: dict[str, Op] = {}
    for op in b.graph.of_kind("c_allgather"):
        kinds = {b.graph.ops[index].kind for index in b.graph.upstream(op)}
        carried = "feature" if "conv2d" in kinds else "count" if "class_center_sample" in kinds else "label"
        assert carried not in found, f"two all-gathers of the {carried}"
        found[carried] = op
    return found


def check_gathers(b: Built) -> None:
    case, found = b.case, gathers(b)
    expected = {"feature", "label"} if case.model_parallel else set()
    if case.sampled:
        expected |= {"label", "count"} if case.model_parallel else {"label"}
    assert set(found) == expected
    width = b.program.spec.embedding_size
    shapes = {"feature": ([BATCH, width], "float32"), "label": ([BATCH], "int64"), "count": ([1], "int64")}
    for carried, op in found.items():
        (length, *rest), dtype = shapes[carried]
        assert (op.attr("nranks"), op.attr("ring_id"), op.attr("use_calc_stream")) == (WORLD, RING, True)
        assert b.graph.shape(op.input("X")) == [length, *rest]
        assert b.graph.shape(op.output("Out")) == [length * WORLD, *rest]
        assert b.graph.dtype(op.input("X")) == b.graph.dtype(op.output("Out")) == dtype


def check_sampling(b: Built) -> None:
    case, graph = b.case, b.graph
    if not (case.sampled and case.model_parallel):
        assert graph.of_kind("class_center_sample") == []
        return
    op = graph.one("class_center_sample")
    expected = {"num_classes": b.num_local, "num_samples": int(0.1 * b.num_local), "fix_seed": False}
    # as with one rank: the kernel for several ranks miscounts (docs/gpu_program.md)
    expected.update(rank=0, nranks=1)
    assert {name: op.attr(name) for name in expected} == expected
    assert gathers(b)["label"].index in graph.upstream(op), "it does not see the labels of all ranks"
    assert [index for _, index in row_reads(b, b.weight)] == [op.output("SampledLocalClassCenter")]


def check_margin_cross_entropy(b: Built) -> None:
    case, graph = b.case, b.graph
    forward, backward = graph.one("margin_cross_entropy"), graph.one("margin_cross_entropy_grad")
    margin1, margin2, margin3 = {"arcface": (1.0, 0.5, 0.0), "cosface": (1.0, 0.0, 0.35)}[case.loss_type]
    rank = case.rank if case.model_parallel else 0
    for op in (forward, backward):
        assert (op.attr("rank"), op.attr("nranks"), op.attr("ring_id")) == (rank, case.shard_world, RING)
        got = [op.attr(name) for name in ("margin1", "margin2", "margin3", "scale")]
        assert all(math.isclose(x, y, rel_tol=1e-6) for x, y in zip(got, (margin1, margin2, margin3, 64.0))), got
    for slot in ("Logits", "Label"):
        assert forward.input(slot) == backward.input(slot)
    assert backward.input("Softmax") == forward.output("Softmax")
    features = GLOBAL_BATCH if case.model_parallel else BATCH
    assert graph.shape(forward.input("Logits")) == [features, b.num_rows]
    assert (graph.shape(forward.input("Label")), graph.dtype(forward.input("Label"))) == ([features, 1], "int64")
    assert graph.dtype(forward.input("Logits")) == "float32"
    labels = graph.upstream(forward, [forward.input("Label")])
    for carried in ("label", "count") if case.model_parallel and case.sampled else ("label",) * case.model_parallel:
        assert carried in gathers(b) and gathers(b)[carried].index in labels, f"not from the {carried} of all ranks"
    clip = graph.writer(forward.input("Logits"), forward)
    assert clip.kind == "clip" and clip.attr("min") == -clip.attr("max")
    assert math.isclose(1.0 - clip.attr("max"), 1e-6, rel_tol=0.1)  # a float32 next to 1 is a multiple of 6e-8 away


def check_loss_is_mean_over_global_batch(b: Built) -> None:
    """From the 1 that the backward pass starts with to the kernel: divided by the global batch, nothing else."""
    graph = b.graph
    kernel = graph.one("margin_cross_entropy_grad")
    name, reader, factor, scaled, guarded = kernel.input("Loss@GRAD"), kernel, 1.0, 0, 0
    while True:
        op = graph.writer(name, reader)
        if op.kind in ("fill_constant", "fill_any_like"):
            factor *= op.attr("value")
            break
        if op.kind == "scale":
            assert op.attr("bias") == 0.0
            factor *= op.attr("scale")
            name, reader = op.input("X"), op
            continue
        assert op.kind in ("reshape2_grad", "reduce_sum_grad", "elementwise_mul_grad"), op.kind
        if op.kind == "elementwise_mul_grad":
            made = graph.writer(op.input("Y"), op)  # 1, or NaN where a label is no class
            guarded += made is not None and made.kind == "where"
            scaled += op.input("Y") == "loss_scaling.scale"
            assert made is None or _one_or_nan(b, made), "another factor"
        if op.kind == "reduce_sum_grad":
            forward = [o for o in graph.of_kind("reduce_sum") if o.input("X") == op.input("X")]
            assert len(forward) == 1 and graph.shape(forward[0].output("Out")) == [], "not a sum over all features"
        name, reader = op.input("Out@GRAD"), op
    assert math.isclose(factor, 1.0 / GLOBAL_BATCH, rel_tol=1e-6), f"factor {factor}, not 1/{GLOBAL_BATCH}"
    assert (scaled, guarded) == (1 if b.case.scaled else 0, 1)


def _one_or_nan(b: Built, op: Op) -> bool:
    values = [b.graph.writer(op.input(slot), op).attr("value") for slot in ("X", "Y")]
    return op.kind == "where" and values[0] == 1.0 and math.isnan(values[1])


def check_feature_gradient_is_reduce_scattered(b: Built) -> None:
    """The complete gradient of the gathered features, as the kernel's backward pass leaves it, and of nothing else."""
    graph = b.graph
    if not b.case.model_parallel:
        assert graph.of_kind("c_reducescatter") == []
        return
    op = graph.one("c_reducescatter")
    assert (op.attr("nranks"), op.attr("ring_id"), op.attr("use_calc_stream")) == (WORLD, RING, True)
    width = b.program.spec.embedding_size
    assert graph.shape(op.input("X")) == [GLOBAL_BATCH, width] and graph.shape(op.output("Out")) == [BATCH, width]
    assert graph.dtype(op.input("X")) == "float32"
    assert graph.gradient_of(op.input("X"), op) == gathers(b)["feature"].output("Out")
    # every term of that gradient is there: one for each operation of the head that reads the gathered features
    readers = [o for o in graph.ops if gathers(b)["feature"].output("Out") in o.reads and o.index < op.index]
    uses = sum(o.reads.count(gathers(b)["feature"].output("Out")) for o in readers if not o.kind.endswith("_grad"))
    assert len(graph.writer(op.input("X"), op).inputs["X"]) == uses
    check_only_gradient_operations(b, graph.one("margin_cross_entropy_grad"), op)


def check_backbone_starts_from_it(b: Built) -> None:
    """Between the complete gradient of the feature and the parameters' there is the backward pass and no factor."""
    start = b.graph.one("c_reducescatter" if b.case.model_parallel else "margin_cross_entropy_grad")
    reductions = backbone_reductions(b)
    assert reductions
    for op in reductions:
        check_only_gradient_operations(b, start, b.graph.writer(op.input("X"), op))


def check_only_gradient_operations(b: Built, first: Op, last: Op) -> None:
    """Every operation on a path from ``first`` to ``last`` belongs to a backward pass; none multiplies by a number."""
    between = b.graph.upstream(last) & b.graph.downstream(first)
    assert between, f"{last.kind} does not depend on {first.kind}"
    parts = ("slice", "elementwise_add") if b.case.accumulate > 1 else ()  # of each micro-batch, and their sum
    for op in (b.graph.ops[index] for index in between):
        if op.kind in ("elementwise_mul", "reduce_sum") and b.case.half:  # a slope's, see Graph.gradient_of
            product = b.graph.writer(op.input("X"), op) if op.kind == "reduce_sum" else op
            assert b.graph.writer(product.input("X"), product).kind == "elementwise_min"
            continue
        plain = op.kind in ("cast", "sum", "reshape2", *parts)
        assert op.kind.endswith("_grad") or plain, f"{op.kind} on the gradient's way"


HEAD_CHECKS = [
    check_gathers,
    check_sampling,
    check_margin_cross_entropy,
    check_loss_is_mean_over_global_batch,
    check_feature_gradient_is_reduce_scattered,
    check_backbone_starts_from_it,
]
