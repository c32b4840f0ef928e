"""The GPU program of one of eight ranks on Paddle 3.x: the same operations as tests/gpu reads on 2.6.

The CPU wheel of 3.x builds every operation but the gradient of margin_cross_entropy, which it refuses because it has
no kernel for it. A stand-in carries the gradient around that one operation; on a GPU wheel none is needed.
"""

from __future__ import annotations

from collections import Counter

import paddle
import pytest

from plsc.backend import collectives, ops, static

if not static.is_pir():
    pytest.skip("programs of Paddle 2.6 are read by tests/gpu", allow_module_level=True)

from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from tests.gpu.cases import BATCH, EMBEDDING, GLOBAL_BATCH, WORLD, Case, environment, rows_of_a_step

paddle.enable_static()
BUCKET = 20_000  # bytes: several buckets in the small net
CASES = [Case(rank=0), Case(rank=7, clip=5.0), Case(rank=3, sample_ratio=1.0), Case(model_parallel=False)]


@pytest.fixture(params=CASES, ids=str)
def built(request, monkeypatch):
    """(case, program, operations) of a training program."""
    if not paddle.is_compiled_with_cuda():
        monkeypatch.setattr(ops, "margin_cross_entropy", around_the_kernel(ops.margin_cross_entropy))
    env = environment(request.param.rank)
    program = build_train(request.param.config(), UserObjects(), env, seed=7, options=BuildOptions(bucket_bytes=BUCKET))
    return request.param, program, list(program.main.global_block().ops)


def around_the_kernel(original):
    def changed(cosine, *arguments):
        loss = original(cosine.detach(), *arguments)
        loss.stop_gradient = True
        return loss + paddle.sum(cosine, axis=1, keepdim=True)

    return changed


def of_kind(ops, kind):
    return [op for op in ops if op.name() == f"pd_op.{kind}"]


def shapes(op):
    return [list(value.shape) for value in op.operands_source()]


def test_collectives(built):
    case, program, ops = built
    counts = Counter(op.name()[len("pd_op.") :] for op in ops)
    gathers = sorted(shapes(op)[0] for op in of_kind(ops, "all_gather"))
    expected = [[BATCH], [BATCH, EMBEDDING]] if case.model_parallel else [[BATCH]]
    assert gathers == sorted(expected + [[1]] * (case.sampled and case.model_parallel))
    for op in of_kind(ops, "all_gather"):
        assert (op.attrs()["nranks"], op.attrs()["ring_id"]) == (WORLD, collectives.RING)
    scattered = of_kind(ops, "reduce_scatter")
    assert [(shapes(op)[0], op.attrs()["nranks"]) for op in scattered] == (
        [([GLOBAL_BATCH, EMBEDDING], WORLD)] if case.model_parallel else []
    )
    assert not [name for name in counts if "broadcast" in name and "tensors" not in name or name.startswith("c_")]
    sums = [shapes(op)[0] for op in of_kind(ops, "all_reduce")]
    assert len(bucket_sums(ops)) > 3
    rows = [shape for shape in sums if len(shape) == 2]
    assert rows == ([] if case.model_parallel else [[rows_of_a_step(case, program.shard), EMBEDDING]])


def bucket_sums(ops):
    """The all-reduces of flat buffers, which are longer than what is summed of a batch."""
    return [op for op in of_kind(ops, "all_reduce") if len(shapes(op)[0]) == 1 and shapes(op)[0][0] > GLOBAL_BATCH]


def carried(reduction):
    """The values that lie end to end in what ``reduction`` sums."""
    concat = reduction.operands_source()[0].get_defining_op()
    parts = concat.operands_source()[0].get_defining_op().operands_source()
    return [part.get_defining_op().operands_source()[0] for part in parts]


def test_all_reduces_carry_each_backbone_gradient(built):
    _, program, ops = built
    sources = [value for reduction in bucket_sums(ops) for value in carried(reduction)]
    gradients, rest = sources[: len(program.parameters)], sources[len(program.parameters) :]
    assert len({value.id for value in sources}) == len(sources)
    kinds = {value.get_defining_op().name() for value in gradients}
    assert all(kind.endswith("_grad") or kind == "builtin.split" for kind in kinds), kinds
    by_size = sorted(list(value.shape) for value in gradients)
    assert by_size == sorted(list(parameter.shape) for parameter in program.parameters)
    kinds = [value.get_defining_op().name() for value in rest]
    assert kinds == ["builtin.parameter"] * (len(rest) - 1) + ["pd_op.data"]  # the statistics, the wish to stop


def test_sums_run_beside_the_backward_pass(built):
    """On a stream of their own, in their turn; and what waits for them stands behind the whole backward pass."""
    _, program, ops = built
    numbers = {op.id(): number for number, op in enumerate(ops)}
    reductions = bucket_sums(ops)
    made = [max(numbers[value.get_defining_op().id()] for value in carried(op)) for op in reductions]
    for op, last, following in zip(reductions, made, [*made[1:], made[-1] + 10**6]):
        attrs = op.attrs()
        assert (attrs["execution_stream"], attrs["scheduling_priority"]) == (collectives.STREAM, 0)
        assert last < numbers[op.id()] < following
        between = {other.name() for other in ops[last + 1 : numbers[op.id()]]}
        assert between <= {"pd_op.reshape", "pd_op.full_int_array", "builtin.combine", "pd_op.full", "pd_op.concat"}
        total = op.results()[0]
        readers = {numbers[other.id()] for other in ops for value in other.operands_source() if value.is_same(total)}
        assert readers and min(readers) > made[-1]
    others = [op for op in ops if op.id() not in {op.id() for op in reductions}]
    assert not [op.name() for op in others if "execution_stream" in op.attrs()]


def test_updates(built):
    """One momentum for each parameter and one for the rows: all of them, or those that are written back afterwards."""
    case, program, ops = built
    updates = of_kind(ops, "momentum_")
    moved = [op.operands_source()[0] for op in updates]
    names = [value.name for value in moved if value.get_defining_op().name() == "builtin.parameter"]
    weight, velocity = (program.rows.tensors[name] for name in ("weight", "velocity"))
    assert sorted(names) == sorted([p.name for p in program.parameters] + [weight] * (not case.sampled))
    assert len(updates) == len(program.parameters) + 1
    for op in updates:
        attrs = op.attrs()
        assert (attrs["use_nesterov"], attrs["regularization_method"]) == (False, "l2_decay")
        got = [attrs[name] for name in ("mu", "regularization_coeff")]
        expected = [case.config().momentum, case.config().weight_decay]
        assert got == pytest.approx(expected, rel=1e-6)  # the attributes are float32
        rate = op.operands_source()[3].get_defining_op()
        assert (rate.name(), rate.attrs().get("name")) == ("pd_op.data", "learning_rate")
    if not case.sampled:
        return
    (update,) = (op for op in updates if op.operands_source()[0].get_defining_op().name() != "builtin.parameter")
    rows, _, old_velocity = update.operands_source()[:3]
    assert list(rows.shape) == list(old_velocity.shape) == [rows_of_a_step(case, program.shard), program.spec.row_size]
    written = {op.operands_source()[0].name: op.operands_source()[2] for op in of_kind(ops, "scatter_")}
    assert set(written) == {weight, velocity, program.rows.touched}
    assert written[weight].is_same(update.results()[0]) and written[velocity].is_same(update.results()[1])
    after = ops[[op.id() for op in ops].index(update.id()) + 1 :]
    again = [op.name() for op in after for value in op.operands_source() if value.is_same(rows)]
    assert again == [], "the rows are read after they were moved"


def test_kernels_of_the_classifier(built):
    case, program, ops = built
    (kernel,) = of_kind(ops, "margin_cross_entropy")
    attrs = kernel.attrs()
    assert (attrs["rank"], attrs["nranks"]) == ((case.rank, WORLD) if case.model_parallel else (0, 1))
    assert [attrs[name] for name in ("margin1", "margin2", "margin3", "scale")] == [1.0, 0.5, 0.0, 64.0]
    samples = of_kind(ops, "class_center_sample")
    if not (case.sampled and case.model_parallel):
        assert samples == []
    else:
        shard, got = program.shard, samples[0].attrs()
        assert (got["num_classes"], got["num_samples"]) == (shard.num_local, shard.num_sample)
        assert (got["rank"], got["nranks"], got["fix_seed"]) == (0, 1, False) and len(samples) == 1
    if case.sampled:
        assert len(of_kind(ops, "scatter_")) == 3  # weight, velocity and the step of their last update, in place
        results = [(op.name(), value) for op in ops for value in op.results() if value.is_dense_tensor_type()]
        shape = [program.shard.num_local, program.spec.row_size]
        dense = Counter(name for name, value in results if list(value.shape) == shape)
        assert dense == {"builtin.parameter": 2, "pd_op.scatter_": 2}  # weight, velocity: no gradient of that shape


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="the GPU wheel has the kernel")
def test_only_the_gradient_of_the_kernel_is_missing_here():
    with pytest.raises(TypeError, match="margin_cross_entropy_grad"):
        build_train(Case().config(), UserObjects(), environment(0), seed=7)
