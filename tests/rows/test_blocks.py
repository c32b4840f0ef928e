"""Blocks and pieces of rows: every row once and in order; columns' largest by halves."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import static
from plsc.classifiers.columns import max_over_rows
from plsc.rows.blocks import FEW_BLOCKS, RowBlock, RowBlocks


@pytest.fixture
def program():
    paddle.enable_static()
    main = paddle.static.Program()
    with static.building(main, paddle.static.Program()):
        yield lambda feed, found: paddle.static.Executor(paddle.CPUPlace()).run(main, feed=feed, fetch_list=found)


@pytest.mark.parametrize("rows, most", [(1, 8), (8, 8), (9, 8), (63, 8), (64, 8), (65, 8), (5, 1)])
def test_pieces_are_all_rows_in_order_and_of_about_the_same_size(program, rows, most):
    index = paddle.static.data("index", [rows], "int64")
    block = RowBlock(0, rows, index, most)
    ends = [piece.end for piece in block.pieces]
    assert [piece.first for piece in block.pieces] == [0, *ends[:-1]] and ends[-1] == rows
    sizes = [piece.end - piece.first for piece in block.pieces]
    assert len(sizes) == -(-rows // most) and max(sizes) <= most and max(sizes) - min(sizes) <= 1
    cut = block.split(index)
    numbers = np.arange(rows) * 3
    *pieces, joined = program({"index": numbers}, [*(piece.select(cut) for piece in block.pieces), block.concat(cut)])
    for piece, values in zip(block.pieces, pieces):
        np.testing.assert_array_equal(values, numbers[piece.first : piece.end])
    np.testing.assert_array_equal(joined, numbers)


@pytest.mark.parametrize("rows, kept", [(5 * FEW_BLOCKS, True), (5 * FEW_BLOCKS + 1, False)])
def test_a_loop_and_a_block_without_one_go_over_the_same_rows(program, rows, kept):
    index = paddle.static.data("index", [rows], "int64")
    blocks = RowBlocks(index, rows, 5)
    assert blocks.is_single == kept

    def body(block, total, number):
        return [total + paddle.sum(block.index, keepdim=True), number * 3 + paddle.max(block.index, keepdim=True)]

    zero = paddle.zeros([1], "int64")
    total, last = program({"index": np.arange(rows)}, blocks.for_each(body, [zero, zero]))
    assert total == rows * (rows - 1) // 2
    ends = [rows - 1] if kept else [min(first + 5, rows) - 1 for first in range(0, rows, 5)]
    expected = 0
    for end in ends:
        expected = expected * 3 + end
    assert last == np.array([expected])


@pytest.mark.parametrize("rows", [1, 2, 256, 257, 511, 513, 1025])
def test_the_largest_of_each_column(program, rows):
    values = np.random.default_rng(rows).standard_normal((rows, 40)).astype("float32") - 10
    x = paddle.static.data("x", [rows, 40], "float32")
    (found,) = program({"x": values}, [max_over_rows(x, RowBlock(0, rows, None))])
    np.testing.assert_array_equal(found, values.max(axis=0))
