"""Ways to break the builder of training programs: each makes a wrong function of the right one, ``original``."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import paddle

from plsc.backend import collectives, ops, slopes
from plsc.backend.static import append_op_out
from plsc.optim.gradients import Buckets
from plsc.rows import momentum_rows, shard_rows
from plsc.rows.blocks import RowBlock


def around(module, name: str, change):
    """Patch: ``module.name`` becomes ``change(original)``."""
    return lambda patch: patch.setattr(module, name, change(getattr(module, name)))


def scaled_backbone(original):
    def changed(*arguments):
        whole, means = original(*arguments)
        return whole.map(lambda gradients: gradients * (1.0 / arguments[2])), means

    return changed


def one_sum_each(original):
    return lambda own, statistics, world_size, *_: (
        Buckets.of_one_each([collectives.all_reduce(gradient, world_size) for gradient in own]),
        [collectives.all_reduce(value, world_size) / world_size for value in statistics],
    )


def one_left_out(original):
    def changed(own, *arguments):
        whole, means = original(own[1:], *arguments)
        return Buckets.of_one_each([own[0], *whole.apart()]), means

    return changed


def twins_swapped(original):
    def changed(*arguments):
        buckets, means = original(*arguments)
        whole = buckets.apart()
        whole[1], whole[2] = whole[2], whole[1]  # the scale and shift of the first normalisation
        return Buckets.of_one_each(whole), means

    return changed


def bucket_left_out(original):
    built = []

    def changed(value, *arguments):
        built.append(value)
        return original(value, *arguments) if len(built) > 1 else paddle.assign(value)

    return changed


def taken_apart_at_once(original):
    def changed(value, *arguments):
        total = original(value, *arguments)
        return paddle.concat(paddle.split(total, [1, value.shape[0] - 1]))

    return changed


def summed_elsewhere(original):
    def changed(value, world_size, beside):
        total = original(value, world_size, False)
        value.block.ops[-1].dist_attr.execution_stream = collectives.STREAM
        return total

    return changed


def in_context(change):
    """The head of GPUs with ``change(context)`` in place of its StepContext."""
    return lambda original: lambda x, blocks, rows, labels, context, divisor: original(
        x, blocks, rows, labels, change(context), divisor
    )


def rows_changed(change):
    """The gradient of the rows, from ``classify`` or from the head, with ``change(gradient)`` in its place."""

    def around_it(original):
        def changed(*arguments):
            out = original(*arguments)
            return replace(out, row_gradients=out.row_gradients.map(change))

        return changed

    return around_it


def rows_not_summed(original):
    def changed(value, world_size, kind=collectives.SUM):
        return value if len(value.shape) == 2 else original(value, world_size, kind)

    return changed


def before_division(gradient):
    return gradient.block.var(gradient.op.input("X")[0])


def broadcast_at_start(original):
    def changed(*arguments):
        made = original(*arguments)
        block = paddle.static.default_startup_program().global_block()
        weight = block.var(made.weight.name)
        attrs = {"ring_id": 0, "root": 0, "use_calc_stream": True}
        block.append_op(type="c_broadcast", inputs={"X": weight}, outputs={"Out": weight}, attrs=attrs)
        return made

    return changed


def scatter_by_copy(original):
    return lambda table, index, values: paddle.assign(paddle.scatter(table, index, values), output=table)


def densely(original):
    def changed(self, gradients, momentum):
        def through_all_rows(gradient):
            index = gradients.blocks.index
            return paddle.gather(paddle.scatter(paddle.zeros(self.spec.shape, "float32"), index, gradient), index)

        original(self, gradients.map(through_all_rows), momentum)

    return changed


def moved(change):
    """What moves the rows gets the arguments (rows, velocity, gradient, update) that ``change`` makes of its own."""
    return around(momentum_rows, "apply_momentum", lambda f: lambda of, *a: f(of, *change(*a)))


def written(change):
    """What is written are the (index, weight, velocity, window_step) that ``change`` makes of what should be."""

    def of(original):
        def changed(state, block, window_step):
            def write(piece, *values):
                index, *values, step = change(block.index, *values, window_step)
                other = block if index is block.index else RowBlock(None, None, index)
                original(state, other, step)(other.pieces[0], *values)

            return write

        return changed

    return around(shard_rows, "make_writer", of)


def without_branch(original):
    return lambda condition, body: body()


def where_skipped(original):
    return lambda condition, body: original(condition if condition is None else paddle.logical_not(condition), body)


def scale_in_branch(original):
    """The loss scale moves in good steps only."""
    return lambda state, found, options: ops.append_unless(found, lambda: original(state, found, options))


def moved_twice(original):
    return lambda self, r, v, *a: original(self, *original(self, r, v, *a), *a)


def read_when_moved(original):
    def changed(*arguments):
        def write(piece, weight, velocity):
            original(*arguments)(piece, weight, velocity)
            paddle.sum(weight)

        return write

    return changed


def by_another_table(original):
    """Rows that were not touched for some steps do not get what these steps did."""
    return lambda state, block, table: original(state, block, paddle.ones([8, 4], "float32"))


def labels_of_one_rank(original):
    def changed(value, world_size):
        return paddle.concat([value] * world_size) if value.shape == (4,) else original(value, world_size)

    return changed


def decision_of_one_rank(original):
    def changed(replicated, sharded, scale, world_size):
        total, _ = original(replicated, sharded, scale, world_size)
        return total, original(replicated, sharded, scale, 1)[1]

    return changed


def each_by_itself(original):
    def changed(replicated, sharded, scale, world_size):
        _, found = original(replicated, sharded, scale, world_size)
        return Buckets.of_one_each([gradient / scale for gradient in replicated.apart()]), found

    return changed


def by_a_missing_kernel(original):
    def changed(self, shape):
        append_op_out("mean", {"X": self.x}, {}, self.x.dtype)
        return original(self, shape)

    return changed


def of_another_image(original):
    """The products are those of the image before the last PReLU, but for this one's slopes."""
    total = slopes.SlopeGradient.total

    def changed(parameters, own):
        seen = []

        def wrong(self, shape):
            seen.append(self)
            same = [one for one in seen if one.x.shape == self.x.shape]
            return total(replace(self, x=same[0].x), shape)

        with mock.patch.object(slopes.SlopeGradient, "total", wrong):
            return original(parameters, own)

    return changed


def rows_not_examined(original):
    nothing = SimpleNamespace(not_finite=lambda: paddle.zeros([1], "float32"))
    return lambda replicated, sharded, *others: original(replicated, nothing, *others)


def rows_not_in_norm(original):
    def changed(replicated, sharded, limit, shard_world):
        nothing = SimpleNamespace(sum=lambda measure: paddle.zeros([1], "float32"), map=sharded.map)
        return original(replicated, nothing, limit, shard_world)

    return changed


def norm_without_last(original):
    def changed(replicated, sharded, limit, shard_world):
        most, sharded = original(replace(replicated, values=replicated.values[:-1]), sharded, limit, shard_world)
        return replace(most, values=[*most.values, replicated.values[-1]]), sharded

    return changed
