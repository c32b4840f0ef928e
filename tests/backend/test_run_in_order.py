"""Operations run in the order of the program, one after the other, on both Paddles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: flags of the executor are those of the process. A row is written, and read through another
# name of the same memory; nothing but the order of the program says when.
RUN = """
import json, zlib  # before paddle, see plsc.backend.paddle_version
import numpy as np
import paddle
from plsc.backend import ops, static
from plsc.backend.cpu import prepare_cpu
from plsc.engine.program.scopes import make_executor
from plsc.parallel.environment import Environment
paddle.enable_static()
prepare_cpu(2)
main, startup = paddle.static.Program(), paddle.static.Program()
with static.building(main, startup):
    table = static.create_state("table", [20, 5], "float32")
    if static.is_pir():
        same = paddle.reshape(paddle._C_ops.share_data(table), [10, 10])
    else:
        same, seen = (static.new_value("share_data", table.dtype) for _ in range(2))
        static.append_op("share_data", {"X": table}, {"Out": same}, {})
        static.append_op("reshape2", {"X": same}, {"Out": same, "XShape": seen}, {"shape": [10, 10]})
    first = paddle.static.data("index", [2], "int64")
    found = []
    for turn in range(20):
        found.append(paddle.nn.functional.embedding(first, same)[:, 0])
        ops.scatter_rows_(table, 2 * first, paddle.full([2, 5], turn + 1.0))
executor = make_executor(Environment())
executor.run(startup)
runs = [executor.run(main, feed={"index": np.array([7, 3])}, fetch_list=found) for _ in range(2)]
print(json.dumps([[x.tolist() for x in run] for run in runs]))
"""


def test_each_row_is_read_when_its_turn_has_come():
    command = [sys.executable, "-c", RUN]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first == [[float(turn)] * 2 for turn in range(20)]
    assert second == [[20.0] * 2] + [[float(turn)] * 2 for turn in range(1, 20)]
