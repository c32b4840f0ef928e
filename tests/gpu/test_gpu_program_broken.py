"""Each check of this folder can fail: the builder is broken in one place and the check named beside must say so."""

from __future__ import annotations

from dataclasses import replace

import paddle
import pytest

from plsc import compat
from plsc.classifiers import head, sampling, step
from plsc.engine import build, gradients
from plsc.optim import parameters, rows
from tests.gpu import half_checks, head_checks, update_checks
from tests.gpu.cases import WORLD, Built, Case

paddle.enable_static()
PLAIN, FULL, DATA = Case(), Case(sample_ratio=1.0), Case(model_parallel=False, sample_ratio=1.0)
HALF, CLIP = Case(rank=7, half=True, calc_acc=False), Case(clip=5.0)


def around(module, name: str, change):
    """Patch: ``module.name`` becomes ``change(original)``."""
    return lambda patch: patch.setattr(module, name, change(getattr(module, name)))


# --- ways to break it ---


def scaled_backbone(original):
    def changed(own, statistics, world_size):
        whole, means = original(own, statistics, world_size)
        return [gradient * (1.0 / world_size) for gradient in whole], means

    return changed


def one_sum_each(original):
    return lambda own, statistics, world_size: (
        [compat.all_reduce(gradient, world_size) for gradient in own],
        [compat.all_reduce(value, world_size) / world_size for value in statistics],
    )


def one_left_out(original):
    def changed(own, statistics, world_size):
        whole, means = original(own[1:], statistics, world_size)
        return [own[0], *whole], means

    return changed


def twins_swapped(original):
    def changed(own, statistics, world_size):
        whole, means = original(own, statistics, world_size)
        whole[1], whole[2] = whole[2], whole[1]  # the scale and shift of the first normalisation
        return whole, means

    return changed


def rows_summed(original):
    return lambda *a: (lambda out: replace(out, drows=compat.all_reduce(out.drows, WORLD)))(original(*a))


def rows_scaled(original):
    return lambda *a: (lambda out: replace(out, drows=out.drows / WORLD))(original(*a))


def rows_not_summed(original):
    def changed(value, world_size, kind=compat.SUM):
        return value if len(value.shape) == 2 else original(value, world_size, kind)

    return changed


def rows_still_scaled(original):
    def changed(*arguments):
        out = original(*arguments)
        return replace(out, drows=out.drows.block.var(out.drows.op.input("X")[0]))

    return changed


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
    return lambda table, index, values: compat.assign_(table, paddle.scatter(table, index, values))


def densely(original):
    def changed(self, index, values, gradient, momentum):
        dense = paddle.scatter(paddle.zeros(self.spec.shape, "float32"), index, gradient)
        original(self, index, values, paddle.gather(dense, index), momentum)

    return changed


def labels_of_one_rank(original):
    def changed(value, world_size):
        return paddle.concat([value] * world_size) if value.shape == (4,) else original(value, world_size)

    return changed


def decision_of_one_rank(original):
    def changed(values, world_size):
        original(values, world_size)
        return original(values, 1)

    return changed


def norm_without_last(original):
    def changed(replicated, sharded, limit, shard_world):
        most, sharded = original(replicated[:-1], sharded, limit, shard_world)
        return [*most, replicated[-1]], sharded

    return changed


# --- what is broken, for which program, and the check that must fail ---

H, U, F = head_checks, update_checks, half_checks
BREAKS = {
    "1/N on the backbone's gradients": (
        PLAIN, around(gradients, "all_reduce_together", scaled_backbone), U.check_gradients_have_no_other_factor),
    "1/N on the rows' gradient": (FULL, around(build, "classify", rows_scaled), U.check_gradients_have_no_other_factor),
    "1/N before the reduce-scatter": (
        PLAIN, around(compat, "reduce_scatter", lambda f: lambda v, *a: f(v * (1.0 / WORLD), *a)),
        H.check_feature_gradient_is_reduce_scattered),
    "1/N after the reduce-scatter": (
        PLAIN, around(compat, "reduce_scatter", lambda f: lambda *a: f(*a) * (1.0 / WORLD)),
        H.check_backbone_starts_from_it),
    "mean over the local batch": (
        PLAIN, around(step, "_global_batch", lambda f: lambda feature, world_size: float(feature.shape[0])),
        H.check_loss_is_mean_over_global_batch),
    "all-reduce and slice": (
        PLAIN, around(compat, "reduce_scatter", lambda f: lambda *a: f(*a[:3], False)),
        H.check_feature_gradient_is_reduce_scattered),
    "a sum for each gradient": (
        PLAIN, around(gradients, "all_reduce_together", one_sum_each), U.check_one_all_reduce_of_the_backbone),
    "a gradient left out of the sum": (
        PLAIN, around(gradients, "all_reduce_together", one_left_out), U.check_one_all_reduce_of_the_backbone),
    "two gradients swapped": (
        PLAIN, around(gradients, "all_reduce_together", twins_swapped), U.check_each_parameter_gets_its_own_gradient),
    "a parameter without update": (
        PLAIN, around(build, "update_parameters", lambda f: lambda p, g, o: f(p[:-1], g[:-1], o)),
        U.check_each_parameter_gets_its_own_gradient),
    "the rows' gradient summed over ranks": (FULL, around(build, "classify", rows_summed), U.check_no_other_sums),
    "data-parallel rows not summed": (DATA, around(compat, "all_reduce", rows_not_summed), U.check_no_other_sums),
    "the shard broadcast": (PLAIN, around(build, "make_rows", broadcast_at_start), U.check_nothing_else_communicates),
    "rows written into a copy": (
        PLAIN, around(compat, "scatter_rows_", scatter_by_copy), U.check_shard_is_updated_in_place),
    "a dense gradient": (PLAIN, around(rows.SampledRows, "update", densely), U.check_no_dense_gradient),
    "labels not gathered": (PLAIN, around(compat, "all_gather", labels_of_one_rank), H.check_gathers),
    "another ring": (PLAIN, lambda patch: patch.setattr(compat, "RING", 1), H.check_gathers),
    "rank 0 in the loss": (
        PLAIN, around(compat, "margin_cross_entropy", lambda f: lambda *a: f(*a[:4], 0, a[5])),
        H.check_margin_cross_entropy),
    "labels not counted over ranks": (
        PLAIN, around(sampling, "labels_over_ranks", lambda f: lambda position, *a: position),
        H.check_margin_cross_entropy),
    "cosines not held": (
        PLAIN, lambda patch: patch.setattr(head, "COSINE_LIMIT", 1.0), H.check_margin_cross_entropy),
    "fewer samples": (
        PLAIN, around(compat, "class_center_sample", lambda f: lambda local, n, s: f(local, n, s - 1)),
        H.check_sampling),
    "rows of another sample": (
        PLAIN, around(step, "_finish", lambda f: lambda out, index, *a: f(out, index + 0, *a)),
        U.check_shard_is_updated_in_place),
    "the rows of the loss are not those updated": (
        PLAIN, around(head, "gpu_head", lambda f: lambda x, r, *a: f(x, r * 1.0, *a)),
        U.check_rows_gradient_is_that_of_the_rows),
    "clipping by one rank's norm": (
        CLIP, around(gradients, "clip_by_global_norm", lambda f: lambda r, s, limit, world: f(r, s, limit, 1)),
        U.check_gradients_have_no_other_factor),
    "a gradient not clipped": (
        CLIP, around(gradients, "clip_by_global_norm", norm_without_last), U.check_gradients_have_no_other_factor),
    "the head in float32": (
        HALF, around(head, "gpu_head", lambda f: lambda *a: f(*a[:4], replace(a[4], half=False), *a[5:])),
        F.check_where_half_precision_is),
    "the backbone in float32": (
        HALF, lambda patch: patch.setattr(compat, "cast_to_half", lambda *a: None), F.check_where_half_precision_is),
    "rows' gradient still scaled": (
        HALF, around(head, "gpu_head", rows_still_scaled), F.check_every_gradient_is_unscaled_and_examined),
    "rows' gradient not examined": (
        HALF, around(gradients, "any_not_finite", lambda f: lambda values, n: f(values[:-1], n)),
        F.check_every_gradient_is_unscaled_and_examined),
    "nobody asks the other ranks": (
        HALF, around(gradients, "any_not_finite", lambda f: lambda values, n: f(values, 1)),
        F.check_every_gradient_is_unscaled_and_examined),
    "each rank decides alone": (
        HALF, around(gradients, "any_not_finite", decision_of_one_rank), F.check_found_is_one_decision),
    "the backbone moves in a skipped step": (
        HALF, lambda patch: patch.setattr(parameters, "standing_still", lambda gradient, *a: gradient),
        F.check_found_is_one_decision),
    "the rows move in a skipped step": (
        HALF, lambda patch: patch.setattr(rows, "standing_still", lambda gradient, *a: gradient),
        F.check_found_is_one_decision),
    "the rate of a skipped step": (
        HALF, lambda patch: patch.setattr(rows.Momentum, "rate", property(lambda self: self.learning_rate)),
        F.check_found_is_one_decision),
    "the loss is not scaled": (
        HALF, around(head, "gpu_head", lambda f: lambda *a: f(*a[:-1])), H.check_loss_is_mean_over_global_batch),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
def test_the_check_notices(what, monkeypatch):
    case, broken, check = BREAKS[what]
    broken(monkeypatch)
    program = Built(case)
    monkeypatch.undo()
    with pytest.raises((AssertionError, ValueError)):  # ValueError: (one,) = something else than one
        check(program)


def test_every_check_is_seen_to_fail():
    noticed = {check for _, _, check in BREAKS.values()}
    assert noticed == {*head_checks.HEAD_CHECKS, *update_checks.UPDATE_CHECKS, *half_checks.HALF_CHECKS}
