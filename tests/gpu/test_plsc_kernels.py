"""classifier.kernels: plsc under mixed precision, which only the wheel for GPUs builds: what is float16, its memory."""

from __future__ import annotations

import paddle
import pytest

from plsc.backend import program_view
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from tests.gpu.cases import GLOBAL_BATCH, Case, environment
from tests.gpu.graph import Graph

paddle.enable_static()
BLOCK = 16


def program_of(ratio, kernels="plsc", num_classes=1003, block_rows=BLOCK):
    config = Case(sample_ratio=ratio, half=True, clip=5.0).config()
    config.set("classifier.kernels", kernels)
    config.set("classifier.num_classes", num_classes)
    return build_train(config, UserObjects(), environment(3), seed=7, options=BuildOptions(block_rows))


@pytest.mark.parametrize("ratio, rows", [(1.0, 126), (0.5, 63)])
def test_the_cosines_are_products_of_float16_and_nothing_else_is(ratio, rows):
    graph = Graph(program_of(ratio).main)
    kinds = {op.kind for op in graph.ops}
    assert not kinds & {"margin_cross_entropy", "class_center_sample", "while"}
    products = graph.of_kind("matmul_v2")
    half = [op for op in products if graph.dtype(op.output("Out")) == "float16"]
    half = [op for op in half if graph.shape(op.output("Out"))[-1] == GLOBAL_BATCH]
    # in each pass again: forward, backward, the norm to clip by, and the update in its branch
    assert len(half) == 4 * -(-rows // BLOCK)
    assert sum(graph.shape(op.output("Out"))[0] for op in half) == 4 * rows
    assert sum(op.branch is not None for op in half) == -(-rows // BLOCK)
    gradients = [op for op in products if GLOBAL_BATCH in graph.shape(op.input("X"))]
    # float64: of the target classes
    assert gradients and {graph.dtype(op.input("X")) for op in gradients} == {"float32", "float64"}


def test_what_a_logit_takes():
    """By the difference of two sizes, of blocks of 500 rows: nothing beside some numbers of each row; Paddle's kernels
    need three arrays of 4 bytes and one of 2."""

    def step(kernels, num_classes):
        program = program_of(1.0, kernels, num_classes, block_rows=500)
        return sum(program_view.peak_memory(program_view.operations(program.main), program.shard.num_sample).values())

    few, many = 8 * 4000, 8 * 8000
    logits = 4000 * GLOBAL_BATCH
    taken = {kernels: (step(kernels, many) - step(kernels, few)) / logits for kernels in ("plsc", "paddle")}
    assert taken["plsc"] < 16 / GLOBAL_BATCH and taken["paddle"] > 14.0
