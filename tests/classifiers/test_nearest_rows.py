"""The search for the largest cosines, against a sort."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.classifiers.nearest_rows import NearestRows, largest
from plsc.rows.blocks import RowBlock

paddle.enable_static()


def run(build, **arrays):
    main = paddle.static.Program()
    with paddle.static.program_guard(main, paddle.static.Program()):
        values = {name: paddle.static.data(name, array.shape, str(array.dtype)) for name, array in arrays.items()}
        fetches = list(build(**values))
    return paddle.static.Executor(paddle.CPUPlace()).run(main, feed=arrays, fetch_list=fetches)


# fewer rows than are wanted, searched as they are, in groups, in groups with 1 and 3 rows left over
@pytest.mark.parametrize("num_rows, count", [(5, 8), (256, 8), (600, 8), (601, 8), (1003, 8), (300, 1), (40, 12)])
def test_the_largest_are_found(num_rows, count):
    values = np.random.default_rng(num_rows).permutation(num_rows * 7).reshape(num_rows, 7).astype("float32")
    values[-1], values[-3] = values.max() + 1 + np.arange(7), values.max() + 9  # also in what is left over
    found, rows = run(lambda values: largest(values, count), values=values)
    order = np.argsort(-values, axis=0)[:count]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(found, np.take_along_axis(values, order, 0))


def test_blocks_add_up():
    values = np.random.default_rng(0).permutation(21).reshape(7, 3).astype("float32")
    search = NearestRows(4)

    def build(first, second):
        best = search.start(first[0])
        for block, part in ((RowBlock(0, 2, None), first), (RowBlock(2, 7, None), second)):
            best = search.merge(block, part, *best)
        return best

    found, rows = run(build, first=values[:2], second=values[2:])
    np.testing.assert_array_equal(rows, np.argsort(-values, axis=0)[:4])
    np.testing.assert_array_equal(found, -np.sort(-values, axis=0)[:4])
