"""The training program of one of eight GPU ranks, built without a GPU: its operations, read from the program."""

from __future__ import annotations

import paddle
import pytest

from tests.gpu.cases import CASES, Built, Case, built
from tests.gpu.half_checks import HALF_CHECKS
from tests.gpu.head_checks import HEAD_CHECKS
from tests.gpu.input_checks import INPUT_CHECKS
from tests.gpu.update_checks import UPDATE_CHECKS

paddle.enable_static()
CHECKS = INPUT_CHECKS + HEAD_CHECKS + UPDATE_CHECKS + HALF_CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__[6:])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_program(case: Case, check):
    check(built(case))


def test_slopes_are_summed_from_images_that_are_computed_again():
    """Else each image would be kept to the backward pass for that sum alone."""
    graph = Built(Case(half=True, recompute=True)).graph
    backward = graph.one("margin_cross_entropy_grad").index
    sums = [op for op in graph.of_kind("elementwise_min") if graph.dtype(op.input("X")) == "float16"]
    assert len(sums) == len(graph.of_kind("prelu_grad")) > 5
    assert all(graph.writer(op.input("X"), op).index > backward for op in sums)
