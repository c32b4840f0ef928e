"""What is read from a program: operations, tensors in use at one time, bytes that travel. Counted by hand here."""

from __future__ import annotations

import zlib  # noqa: F401  before paddle, see plsc.backend.paddle_version

import numpy as np
import paddle
import pytest

from plsc.backend import collectives, ops, program_view, static

paddle.enable_static()
SIDE = 100
ONE = 4 * SIDE * SIDE  # bytes of a [SIDE, SIDE] float32


def view(build):
    """(operations, value returned by ``build``) of a program that ``build(x)`` appends to; x [SIDE, SIDE] is fed."""
    main = paddle.static.Program()
    with static.building(main, paddle.static.Program()):
        result = build(paddle.static.data("x", [SIDE, SIDE], "float32"))
    return program_view.operations(main), result


def most(build, unknown=1):
    return sum(program_view.peak_memory(view(build)[0], unknown).values())


def about(number):
    """Paddle keeps some constants of a few bytes as tensors."""
    return pytest.approx(number * ONE, abs=100)


def test_an_operation_in_place_takes_no_memory_of_its_own():
    # x * 2 is a new tensor, and the others can be written over it
    assert most(lambda x: paddle.sum(paddle.exp(paddle.tanh(x * 2.0)))) == about(2)


def test_an_argument_that_is_read_later_stays():
    def build(x):
        double = x * 2.0
        return paddle.sum(paddle.matmul(double, paddle.exp(double)))  # x, double, exp and the product

    assert most(build) == about(4)


def test_what_nobody_reads_any_more_goes():
    def build(x):
        for _ in range(5):
            x = paddle.matmul(x, x)  # never in place: x as fed, argument and result
        return x

    assert most(build) == about(3)


def test_parts_of_a_list_are_one_memory():
    def build(x):
        left, right = paddle.split(paddle.matmul(x, x), 2, axis=1)
        return paddle.concat([left, right], axis=1)  # x, both halves, and the whole again

    assert most(build) == about(3)


def test_a_size_that_is_not_known_counts_as_told():
    def build(x):
        return paddle.gather(x, paddle.static.data("index", [-1], "int64"))

    assert most(build, unknown=7) == pytest.approx(ONE + 7 * 8 + 4 * 7 * SIDE, abs=100)


def test_a_loop_counts_while_it_runs():
    def build(x):
        number = paddle.full([1], 0, "int64")
        body = lambda n, y: [n + 1, paddle.matmul(paddle.matmul(y, y), y)]  # noqa: E731
        return paddle.static.nn.while_loop(lambda n, y: paddle.all(n < 2), body, [number, paddle.matmul(x, x)])

    operations = view(build)[0]
    (loop,) = [op for op in operations if op.blocks]
    assert sum(op.kind.startswith("matmul") for op in loop.blocks[0]) == 2
    # x and its square, which the loop hands on, and the two products of its body
    assert 4 * ONE <= most(build) <= 5.1 * ONE


def test_states_are_persistable_and_changed_in_place():
    def build(x):
        state = static.create_state("state", [SIDE, SIDE], "float32")
        ops.scatter_rows_(state, paddle.static.data("index", [2], "int64"), paddle.exp(x[:2]))

    operations, _ = view(build)
    assert list(program_view.persistables(operations)) == ["state"]
    (scatter,) = [op for op in operations if op.kind == "scatter"]
    assert [tensor.name for tensor in scatter.writes] == ["state"] and scatter.writes[0] in scatter.reads
    assert sum(program_view.peak_memory(operations).values()) < 1.1 * ONE + 4096  # x, and two rows of it


def test_a_gradient_that_needs_no_numbers_keeps_none():
    """Of a sum only the shape of its argument is needed on the way back."""

    def build(x):
        parameter = paddle.create_parameter([SIDE, SIDE], "float32")
        product = paddle.matmul(x, parameter)
        return paddle.static.gradients([paddle.sum(product + 1.0)], [parameter])

    operations, _ = view(build)
    reads = {op.kind: (op.reads, op.needs) for op in operations if op.kind in ("sum_grad", "reduce_sum_grad")}
    ((every, needed),) = reads.values()
    assert len(needed) < len(every)


def test_traffic_of_each_collective():
    def build(x):
        gathered = collectives.all_gather(x, 4)
        collectives.all_reduce(gathered, 4)
        collectives.all_reduce(paddle.max(x, axis=1), 4, collectives.MAX)
        collectives.reduce_scatter(gathered, 0, 4, on_gpu=True)

    assert program_view.collective_bytes(view(build)[0]) == [
        ("all_gather", ONE), ("all_reduce", 4 * ONE), ("all_reduce", 4 * SIDE), ("reduce_scatter", 4 * ONE)
    ]  # fmt: skip


def test_a_size_in_bytes():
    kinds = ("float32", "int64", "bool", "float16")
    sizes = {dtype: program_view.Tensor("k", (3, -1), dtype).size(5) for dtype in kinds}
    assert sizes == {"float32": 60, "int64": 120, "bool": 15, "float16": 30}
    assert program_view.Tensor("k", (), "float64").size() == np.dtype("float64").itemsize
