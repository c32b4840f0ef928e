"""mixed_precision.level: O2: a parameter is cast once a step, and gradients in whole buckets."""

from __future__ import annotations

import paddle
import pytest

from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from tests.gpu.cases import BUCKET, Case, environment


def operations(level: str, **changes):
    case = Case(half=True, **changes)
    config = case.config()
    config.set("mixed_precision.level", level)
    options = BuildOptions(bucket_bytes=BUCKET, pixels=True)
    program = build_train(config, UserObjects(), environment(case.rank), seed=7, options=options)
    return program, [op for block in program.main.blocks for op in block.ops]


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulate": 2}, {"accumulate": 2, "recompute": True}],
    ids=["plain", "accumulated", "accumulated, recomputed"],
)
def test_each_parameter_is_cast_once(changes):
    program, ops = operations("O2", **changes)
    names = {parameter.name for parameter in program.parameters}
    casts = [op.input("X")[0] for op in ops if op.type == "cast" and op.input("X")[0] in names]
    assert len(casts) == len(set(casts)) > 20
    convolutions = [op for op in ops if op.type == "conv2d"]
    copies = {op.output("Out")[0] for op in ops if op.type == "cast" and op.input("X")[0] in names}
    assert convolutions and all(op.input("Filter")[0] in copies for op in convolutions)
    _, others = operations("O1", **changes)
    assert len(ops) < len(others) - len(casts) // 2


def test_gradients_are_cast_by_the_bucket():
    """One operation for those of a bucket that are half; slopes of PReLU and batch normalization are float32."""
    program, ops = operations("O2")
    block = program.main.global_block()
    writers = {name: op for op in ops for name in op.output_arg_names}
    sums = [op for op in ops if op.type == "c_allreduce_sum" and block.var(op.input("X")[0]).shape[0] * 4 >= 64]
    # in place with 2.6: the sum's result has the name of its input
    flats = [op for op in ops if op.type == "concat" and op.output("Out")[0] in {one.input("X")[0] for one in sums}]
    assert len(flats) > 3
    parts = [writers[name] for op in flats for name in op.input("X")]
    cast = [op for op in parts if op.type == "cast"]
    assert cast and all(writers[op.input("X")[0]].type == "concat" for op in cast)
    halves = [name for op in cast for name in writers[op.input("X")[0]].input("X")]
    assert len(halves) > 20 and len(cast) <= len(flats)
    assert {writers[name].type for name in halves} == {"reshape2"}
    gradients = {writers[name].input("X")[0] for name in halves}
    assert {block.var(name).dtype for name in gradients} == {paddle.float16}
