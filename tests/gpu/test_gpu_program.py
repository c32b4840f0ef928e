"""The training program of one of eight GPU ranks, built without a GPU: its operations, read from the program."""

from __future__ import annotations

import paddle
import pytest

from tests.gpu.cases import CASES, Case, built
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
