"""The same memory in another shape, and the order on which its readers rely."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plsc import compat, program_view

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: flags of the executor are those of the process, and so is what Paddle counts. A row is read,
# written and read again through the other shape; nothing but the order of the program says when.
RUN = """
import json, zlib
import numpy as np
import paddle
from paddle.base import core
from plsc import compat
from plsc.engine.cpu import prepare_cpu
from plsc.engine.scopes import make_executor
from plsc.parallel.environment import Environment
paddle.enable_static()
prepare_cpu(2)
main, startup = paddle.static.Program(), paddle.static.Program()
with compat.building(main, startup):
    table = compat.create_state("table", [200_000, 50], "float32")
    pairs = compat.seen_as(table, [100_000, 100])
    first = paddle.static.data("index", [2], "int64")
    found = []
    for turn in range(20):
        found.append(paddle.nn.functional.embedding(first, pairs)[:, 0])
        compat.scatter_rows_(table, 2 * first, paddle.full([2, 50], turn + 1.0))
executor = make_executor(Environment())
executor.run(startup)
before = core.host_memory_stat_current_value("Allocated", 0)
runs = [executor.run(main, feed={"index": np.array([7, 3])}, fetch_list=found) for _ in range(2)]
peak = core.host_memory_stat_peak_value("Allocated", 0)
values = np.array(paddle.static.global_scope().find_var("table").get_tensor())
sums = float(values.sum()), float(values[[14, 6]].sum())
print(json.dumps([[[x.tolist() for x in run] for run in runs], *sums, before, peak]))
"""


@pytest.fixture(scope="module")
def result():
    command = [sys.executable, "-c", RUN]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_operations_run_in_the_order_of_the_program(result):
    runs = result[0]
    assert runs[0] == [[float(turn)] * 2 for turn in range(20)]
    assert runs[1] == [[20.0] * 2] + [[float(turn)] * 2 for turn in range(1, 20)]


def test_what_is_written_to_the_variable_is_read_in_the_other_shape(result):
    _, total, of_the_rows, _, _ = result
    assert total == of_the_rows == 20.0 * 2 * 50


def test_there_is_no_copy(result):
    *_, before, peak = result
    assert 40_000_000 <= before and peak < before + 2_000_000


def test_the_view_of_a_program_knows_that_it_is_the_same_memory():
    import paddle

    main, startup = paddle.static.Program(), paddle.static.Program()
    with compat.building(main, startup):
        table = compat.create_state("table", [2000, 5], "float32")
        index = paddle.static.data("index", [2], "int64")
        paddle.nn.functional.embedding(index, compat.seen_as(table, [1000, 10]))
        copy = paddle.reshape(table, [1000, 10]) * 2.0
    ops = program_view.operations(main)
    read = [op for op in ops if op.kind in ("embedding", "lookup_table_v2")]
    assert "table" in {tensor.name for tensor in read[0].reads}
    # what is reshaped without it is a copy: it and its product, which may take its place
    assert list(copy.shape) == [1000, 10] and 4 * 10_000 <= sum(program_view.peak(ops).values()) <= 2 * 4 * 10_000 + 200
