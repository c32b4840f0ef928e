"""Ways to break the program of GPUs that only its numbers show; test_gpu_training.py sees each of them there."""

from __future__ import annotations

import paddle
import pytest

from plsc.backend import autodiff, collectives, ops
from plsc.classifiers import sampling, step
from plsc.engine.program import build, gradients
from plsc.rows import blocks, momentum_rows
from tests.dist import gpu_cases
from tests.gpu.breaking import around, bucket_left_out, rows_changed, rows_not_summed


def leaves_as_they_come(patch):
    patch.setattr(autodiff, "as_leaf", lambda value: value)
    patch.setattr(autodiff, "_sums_gradients", lambda value: True)


def table_of_nothing(original):
    """Rows that were not touched for some steps stay as they were."""
    identity = [1.0, 0.0, 0.0, 1.0]
    return lambda state, block, table: original(state, block, table * 0.0 + paddle.to_tensor(identity))


def slice_of_rank_0(original):
    return lambda value, rank, world_size, on_gpu: original(value, 0, world_size, False)


def slice_of_own_part(original):
    return lambda value, rank, world_size, on_gpu: paddle.split(value, world_size, axis=0)[rank]


def largest_of_this_rank(original):
    return lambda value, world_size, kind=collectives.SUM: (
        value if list(value.shape) == [12] else original(value, world_size, kind)
    )


def row_before(original):
    """The target class is taken for the one before it in the sample."""
    def changed(*arguments):
        index, position = original(*arguments)
        return index, paddle.maximum(position - 1, paddle.clip(position, max=0))

    return changed


# what is broken: the case whose numbers show it, what breaks it
BREAKS = {
    "gradients by the gathered features as they come": ("model parallel", leaves_as_they_come),
    "every rank goes on with the features of rank 0": (
        "model parallel", around(collectives, "reduce_scatter", slice_of_rank_0)),
    "the features' gradient is not summed": (
        "model parallel", around(collectives, "reduce_scatter", slice_of_own_part)),
    "rank 0 in the loss": (
        "model parallel", around(ops, "margin_cross_entropy", lambda f: lambda *a: f(*a[:4], 0, a[5]))),
    "a loss of each rank": (
        "even cosface", around(ops, "margin_cross_entropy", lambda f: lambda c, y, *a: f(c, y % 12, *a[:2], 0, 1))),
    "the mean over the local batch": (
        "model parallel", around(step, "_global_batch", lambda f: lambda feature, world_size: float(feature.shape[0]))),
    "a bucket left out": ("a bucket for each", around(collectives, "all_reduce_overlapped", bucket_left_out)),
    "rows summed over the ranks": (
        "even cosface", around(build, "classify", rows_changed(lambda gradient: collectives.all_reduce(gradient, 2)))),
    "rows of all classes not summed": ("data parallel", around(collectives, "all_reduce", rows_not_summed)),
    "clipped by the norm of one rank": (
        "clipped", around(gradients, "clip_by_global_norm", lambda f: lambda r, s, limit, world: f(r, s, limit, 1))),
    "rows not brought up to date": ("sampled many steps", around(momentum_rows, "StaleRows", table_of_nothing)),
    "labels one row further": (
        "sampled", around(sampling, "labels_over_ranks",
                          lambda f: lambda p, i, *a: paddle.maximum(f(p, i, *a) - 1, paddle.zeros_like(p)))),
    "accuracy by the rows of one rank": ("model parallel", around(collectives, "all_reduce", largest_of_this_rank)),
    "a row in no block": (
        "even, plsc", around(blocks, "_even_sizes", lambda f: lambda total, largest: f(total - 1, largest))),
    "a block's cosines for all": ("even, plsc", lambda patch: patch.setattr(
        blocks._ValueStore, "get", lambda store, rows: next(iter(store._values.values())))),
    "another row as the target class": ("sampled, plsc", around(sampling, "sample_rows", row_before)),
    "rows' gradient scaled twice": (
        "loss scaling", around(build, "classify", rows_changed(lambda gradient: gradient / 1024.0))),
}  # fmt: skip


def broken(env, cases):
    """What the steps of each (name of the break, case) return."""
    found = []
    for name, case in cases:
        with pytest.MonkeyPatch.context() as patch:
            BREAKS[name][1](patch)
            found.append(gpu_cases.training(env, [case])[0])
    return found
