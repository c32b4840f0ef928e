"""Each check of this folder can fail: the builder is broken in one place and the check named beside must say so."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import paddle
import pytest

from plsc.backend import collectives, half_precision, ops, slopes, static
from plsc.classifiers import gpu_head, sampling, step
from plsc.config import Config
from plsc.engine.program import build, gradients, inputs, update
from plsc.optim import gradients as buckets
from plsc.rows import momentum_rows, shard_rows
from plsc.rows.optimizers.momentum import Momentum
from tests.gpu import half_checks, head_checks, input_checks, update_checks
from tests.gpu.breaking import (
    around,
    before_division,
    broadcast_at_start,
    bucket_left_out,
    by_a_missing_kernel,
    by_another_table,
    decision_of_one_rank,
    densely,
    each_by_itself,
    in_context,
    labels_of_one_rank,
    moved,
    moved_twice,
    norm_without_last,
    of_another_image,
    one_left_out,
    one_sum_each,
    read_when_moved,
    rows_changed,
    rows_not_examined,
    rows_not_in_norm,
    rows_not_summed,
    scale_in_branch,
    scaled_backbone,
    scatter_by_copy,
    summed_elsewhere,
    taken_apart_at_once,
    twins_swapped,
    where_skipped,
    without_branch,
    written,
)
from tests.gpu.cases import WORLD, Built, Case, built

paddle.enable_static()
PLAIN, FULL, DATA = Case(), Case(sample_ratio=1.0), Case(model_parallel=False, sample_ratio=1.0)
HALF, CLIP = Case(rank=7, half=True, calc_acc=False), Case(clip=5.0)
BRAIN = replace(HALF, dtype="bfloat16")


# --- what is broken, for which program, and the check that must fail ---

N, H, U, F = input_checks, head_checks, update_checks, half_checks
BREAKS = {
    "floats fed": (
        PLAIN, around(build, "make_inputs", lambda f: lambda *a, pixels, **k: f(*a, **k)),
        N.check_images_are_fed_as_pixels),
    "pixels times a reciprocal": (
        PLAIN, around(inputs, "normalise_in_program", lambda f: lambda x, std: (x.astype("float32") - 127.5) / std),
        N.check_pixels_are_normalized),
    "pixels normalized in float16": (
        HALF, around(half_precision, "read_so_far", lambda f: lambda program: set()), N.check_pixels_are_normalized),
    "NCHW in mixed precision": (
        HALF, lambda patch: patch.setattr(Config, "layout", "NCHW"), N.check_layout),
    "pixels normalized twice": (
        PLAIN, around(inputs, "normalise_in_program", lambda f: lambda x, std: f(f(x, std), std)),
        N.check_pixels_are_normalized),
    "1/N on the backbone's gradients": (
        PLAIN, around(gradients, "all_reduce_in_buckets", scaled_backbone), U.check_gradients_have_no_other_factor),
    "1/N on the rows' gradient": (
        FULL, around(build, "classify", rows_changed(lambda g: g / WORLD)),
        U.check_gradients_have_no_other_factor),
    "1/N on the gradient of sampled rows": (
        PLAIN, moved(lambda r, v, g, m: (r, v, g / WORLD, m)), U.check_gradients_have_no_other_factor),
    "1/N before the reduce-scatter": (
        PLAIN, around(collectives, "reduce_scatter", lambda f: lambda v, *a: f(v * (1.0 / WORLD), *a)),
        H.check_feature_gradient_is_reduce_scattered),
    "1/N after the reduce-scatter": (
        PLAIN, around(collectives, "reduce_scatter", lambda f: lambda *a: f(*a) * (1.0 / WORLD)),
        H.check_backbone_starts_from_it),
    "mean over the local batch": (
        PLAIN, around(step, "_global_batch", lambda f: lambda feature, world_size: float(feature.shape[0])),
        H.check_loss_is_mean_over_global_batch),
    "all-reduce and slice": (
        PLAIN, around(collectives, "reduce_scatter", lambda f: lambda *a: f(*a[:3], False)),
        H.check_feature_gradient_is_reduce_scattered),
    "a sum for each gradient": (
        PLAIN, around(gradients, "all_reduce_in_buckets", one_sum_each), U.check_all_reduces_of_the_backbone),
    "a gradient left out of the sum": (
        PLAIN, around(gradients, "all_reduce_in_buckets", one_left_out), U.check_all_reduces_of_the_backbone),
    "one sum for all": (
        PLAIN, around(buckets, "group_into_buckets", lambda f: lambda sizes, places, least: f(sizes, places, 10**9)),
        U.check_all_reduces_of_the_backbone),
    "a bucket left out": (
        PLAIN, around(collectives, "all_reduce_overlapped", bucket_left_out), U.check_all_reduces_of_the_backbone),
    "buckets from the first layer on": (
        PLAIN,
        around(buckets, "group_into_buckets", lambda f: lambda sizes, places, *a: f(sizes, [-p for p in places], *a)),
        U.check_sums_run_beside_the_backward_pass),
    "the sums behind the backward pass": (
        PLAIN, around(static, "insert_after", lambda f: lambda place: contextlib.nullcontext()),
        U.check_sums_run_beside_the_backward_pass),
    "the sums on the stream that computes": (
        PLAIN, around(collectives, "all_reduce_overlapped", lambda f: lambda value, ranks, _: f(value, ranks, False)),
        U.check_sums_run_beside_the_backward_pass),
    "a sum into memory of the other stream": (
        PLAIN, around(collectives, "all_reduce_overlapped", summed_elsewhere),
        U.check_sums_run_beside_the_backward_pass),
    "a sum waited for at once": (
        PLAIN, around(collectives, "all_reduce_overlapped", taken_apart_at_once),
        U.check_sums_run_beside_the_backward_pass),
    "two gradients swapped": (
        PLAIN, around(gradients, "all_reduce_in_buckets", twins_swapped), U.check_each_parameter_gets_its_own_gradient),
    "a parameter without update": (
        PLAIN, around(update, "update_parameters", lambda f: lambda p, s, g, o: f(p[:-1], s[:-1], g[:-1], o)),
        U.check_each_parameter_gets_its_own_gradient),
    "the rows' gradient summed over ranks": (
        FULL, around(build, "classify", rows_changed(lambda g: collectives.all_reduce(g, WORLD))),
        U.check_no_other_sums),
    "data-parallel rows not summed": (DATA, around(collectives, "all_reduce", rows_not_summed), U.check_no_other_sums),
    "the shard broadcast": (PLAIN, around(build, "make_rows", broadcast_at_start), U.check_nothing_else_communicates),
    "rows written into a copy": (
        PLAIN, around(ops, "scatter_rows_", scatter_by_copy), U.check_shard_is_updated_in_place),
    "a dense gradient": (
        PLAIN, around(momentum_rows.SampledMomentumRows, "update", densely), U.check_no_dense_gradient),
    "labels not gathered": (PLAIN, around(collectives, "all_gather", labels_of_one_rank), H.check_gathers),
    "another ring": (PLAIN, lambda patch: patch.setattr(collectives, "RING", 1), H.check_gathers),
    "rank 0 in the loss": (
        PLAIN, around(ops, "margin_cross_entropy", lambda f: lambda *a: f(*a[:4], 0, a[5])),
        H.check_margin_cross_entropy),
    "labels not counted over ranks": (
        PLAIN, around(sampling, "labels_over_ranks", lambda f: lambda position, *a: position),
        H.check_margin_cross_entropy),
    "cosines not held": (
        PLAIN, lambda patch: patch.setattr(gpu_head, "COSINE_LIMIT", 1.0), H.check_margin_cross_entropy),
    "fewer samples": (
        PLAIN, around(ops, "class_center_sample", lambda f: lambda local, n, s: f(local, n, s - 1)),
        H.check_sampling),
    "rows of another sample": (
        PLAIN, written(lambda index, *a: (index + 0, *a)), U.check_shard_is_updated_in_place),
    "weight and velocity exchanged": (
        PLAIN, written(lambda index, w, v, now: (index, v, w, now)), U.check_shard_is_updated_in_place),
    "an old velocity written": (
        PLAIN, written(lambda index, w, v, now: (index, w, v * 1.0, now)), U.check_shard_is_updated_in_place),
    "up to date until this step only": (
        PLAIN, written(lambda index, w, v, now: (index, w, v, now - 1)), U.check_shard_is_updated_in_place),
    "the rows read after they are moved": (
        PLAIN, around(shard_rows, "make_writer", read_when_moved), U.check_shard_is_updated_in_place),
    "the rows moved twice": (
        PLAIN, around(momentum_rows, "apply_momentum", moved_twice), U.check_each_parameter_gets_its_own_gradient),
    "a copy of the rows moved": (
        PLAIN, moved(lambda r, v, g, m: (r * 1.0, v, g, m)), U.check_rows_gradient_is_that_of_the_rows),
    "the rows not brought up to date": (
        PLAIN, around(momentum_rows, "StaleRows", by_another_table), U.check_rows_gradient_is_that_of_the_rows),
    "another momentum for the rows": (
        PLAIN, moved(lambda r, v, g, m: (r, v, g, replace(m, optimizer=Momentum(0.0)))), U.check_updates_are_momentum),
    "no decay of the rows": (
        FULL, lambda patch: patch.setattr(shard_rows.ShardRows, "weight_decay", 0.0), U.check_updates_are_momentum),
    "1/N on the rate": (
        PLAIN, moved(lambda r, v, g, m: (r, v, g, replace(m, learning_rate=m.learning_rate / WORLD))),
        U.check_updates_are_momentum),
    "the rows of the loss are not those updated": (
        PLAIN, around(gpu_head, "gpu_head", lambda f: lambda x, blocks, r, *a: f(x, blocks, r * 1.0, *a)),
        U.check_rows_gradient_is_that_of_the_rows),
    "clipping by one rank's norm": (
        CLIP, around(gradients, "clip_by_global_norm", lambda f: lambda r, s, limit, world: f(r, s, limit, 1)),
        U.check_gradients_have_no_other_factor),
    "a gradient not clipped": (
        CLIP, around(gradients, "clip_by_global_norm", norm_without_last), U.check_gradients_have_no_other_factor),
    "the rows not in the norm": (
        CLIP, around(gradients, "clip_by_global_norm", rows_not_in_norm), U.check_gradients_have_no_other_factor),
    "the head in float32": (
        HALF, around(gpu_head, "gpu_head", in_context(lambda one: replace(one, spec=replace(one.spec, half=False)))),
        F.check_where_half_precision_is),
    "the backbone in float32": (
        HALF, lambda patch: patch.setattr(half_precision, "cast_program", lambda *a: None),
        F.check_where_half_precision_is),
    "PReLU in float32": (
        HALF, lambda patch: patch.setattr(half_precision, "ALSO_IN_HALF", frozenset()), F.check_images_are_not_cast),
    "slopes summed by Paddle's kernel": (
        HALF, around(slopes, "sum_in_float32", lambda f: lambda parameters, own: own),
        F.check_slopes_are_summed_in_float32),
    "the slopes' gradient of another image": (
        HALF, around(slopes, "sum_in_float32", of_another_image), F.check_slopes_are_summed_in_float32),
    "a head in bfloat16": (
        BRAIN, around(gpu_head, "gpu_head", in_context(lambda one: replace(one, spec=replace(one.spec, half=True)))),
        F.check_where_half_precision_is),
    "an operation that GPUs do not have in bfloat16": (
        BRAIN, around(slopes.SlopeGradient, "total", by_a_missing_kernel), F.check_kernels_exist),
    "rows' gradient still scaled": (
        HALF, around(gpu_head, "gpu_head", rows_changed(before_division)),
        F.check_every_gradient_is_unscaled_and_examined),
    "rows' gradient not examined": (
        HALF, around(gradients, "unscale", rows_not_examined),
        F.check_every_gradient_is_unscaled_and_examined),
    "nobody asks the other ranks": (
        HALF, around(gradients, "unscale", lambda f: lambda r, s, scale, world_size: f(r, s, scale, 1)),
        F.check_every_gradient_is_unscaled_and_examined),
    "each rank decides alone": (
        HALF, around(gradients, "unscale", decision_of_one_rank), F.check_found_is_one_decision),
    "all moves in a skipped step": (
        HALF, around(ops, "append_unless", without_branch), F.check_found_is_one_decision),
    "all moves in a skipped step only": (
        HALF, around(ops, "append_unless", where_skipped), F.check_found_is_one_decision),
    "the loss scale never falls": (
        HALF, around(build, "update_scale", scale_in_branch), F.check_found_is_one_decision),
    "each gradient unscaled by itself": (
        HALF, around(gradients, "unscale", each_by_itself), F.check_costs_a_few_operations),
    "the loss is not scaled": (
        HALF, around(gpu_head, "gpu_head", in_context(lambda one: replace(one, loss_scale=None))),
        H.check_loss_is_mean_over_global_batch),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
def test_the_check_notices(what, monkeypatch):
    case, broken, check = BREAKS[what]
    check(built(case))  # it holds where nothing is broken
    broken(monkeypatch)
    program = Built(case)
    monkeypatch.undo()
    with pytest.raises((AssertionError, ValueError)):  # ValueError: (one,) = something else than one
        check(program)


def test_every_check_is_seen_to_fail():
    noticed = {check for _, _, check in BREAKS.values()}
    assert noticed == {*N.INPUT_CHECKS, *H.HEAD_CHECKS, *U.UPDATE_CHECKS, *F.HALF_CHECKS}
