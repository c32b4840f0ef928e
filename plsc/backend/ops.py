"""Operations that differ between Paddle 2.6 and 3.x. A name ending in ``_`` means: changes its first argument in place,
without a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle

from plsc.backend import private
from plsc.backend.collectives import RING
from plsc.backend.static import append_op, append_op_out, is_pir, new_value


def increment_(target, by: int = 1) -> None:
    """target := target + by, in place."""
    paddle.increment(target, float(by))


def scatter_rows_(table, index, rows) -> None:
    """table[index] := rows, in place. The cost depends on the rows only. ``index`` must have no duplicates."""
    if is_pir():
        by_copy = lambda: _put(table, paddle.scatter(table, index, rows, True))  # noqa: E731
        private.fast_or_public("_C_ops.scatter_", (table, index, rows, True), by_copy)
    else:
        append_op("scatter", {"X": table, "Ids": index, "Updates": rows}, {"Out": table}, {"overwrite": True})


def add_rows_(table, index, rows):
    """table[index] += rows, in place; ``index`` may have duplicates. Returns the table."""
    if is_pir():
        by_copy = lambda: _put(table, paddle.index_add(table, index, 0, rows))  # noqa: E731
        return private.fast_or_public("_C_ops.index_add_", (table, index, rows, 0), by_copy)
    append_op("index_add", {"X": table, "Index": index, "AddValue": rows}, {"Out": table}, {"axis": 0})
    return table


def scale_channels(value, factor):
    """``value`` [1, C, 1, n] with each channel multiplied by its ``factor`` [C], in one pass."""
    zeros = paddle.zeros_like(factor)
    if is_pir():
        arguments = (value, factor, zeros, "NCHW")
        by_product = lambda: value * paddle.reshape(factor, [1, -1, 1, 1])  # noqa: E731
        return private.fast_or_public("_C_ops.affine_channel", arguments, by_product)
    inputs, attrs = {"X": value, "Scale": factor, "Bias": zeros}, {"data_layout": "NCHW"}
    return append_op_out("affine_channel", inputs, attrs, value.dtype)


def gaussian(shape: list[int], mean: float, deviation: float, seed: int):
    """float32 from a normal distribution, by a separate generator: the same numbers for the same ``seed``, not 0."""
    return private.require("tensor.random.gaussian")(shape, mean, deviation, seed, "float32")


BITS_LOST = {"float16": 13, "bfloat16": 16}  # of the 24 of float32


def round_to(value, dtype: str):
    """float32 ``value`` as float16 or bfloat16, rounded to the nearest. On CPUs the cast of Paddle 2.6 rounds towards
    0.

    Below 6e-5, where the spacing of float16 is 6e-8, this still rounds towards 0 with Paddle 2.6.
    """
    if not is_pir():
        # Splitting: the result fits the type, so that the cast is exact (T. J. Dekker, A floating-point technique for
        # extending the available precision, 1971)
        large = value * float(2 ** BITS_LOST[dtype] + 1)
        value = large - (large - value)
    return paddle.cast(value, dtype)


def put_half_rows_(table, index, rows) -> None:
    """scatter_rows_ for float16 and bfloat16, which have no ``scatter`` on CPUs."""
    if is_pir():
        by_copy = lambda: _put_half_rows(table, index, rows)  # noqa: E731
        private.fast_or_public("_C_ops.index_put_", (table, [index], rows, False), by_copy)
    else:
        inputs = {"x": table, "indices": [index], "value": rows}
        append_op("index_put", inputs, {"out": table}, {"accumulate": False})


def while_loop(condition, body, carried: list) -> list:
    """carried = body(*carried) while condition(*carried) [1] bool; no gradient flows through it."""
    if not is_pir():  # the loop of 2.6 changes its inputs in place
        carried = [paddle.assign(value) for value in carried]
    return paddle.static.nn.while_loop(lambda *values: paddle.reshape(condition(*values), []), body, carried, True)


def momentum_(parameter, gradient, velocity, learning_rate, momentum: float, weight_decay: float) -> tuple:
    """velocity := momentum * velocity + gradient + weight_decay * parameter; parameter -= learning_rate * velocity.

    One pass, in place; returns the new (parameter, velocity). ``learning_rate`` is a [1] float32 value.
    """
    if is_pir():
        settings = (None, momentum, False, "l2_decay", weight_decay, False, 1.0)
        return private.fast_or_public(
            "_C_ops.momentum_", (parameter, gradient, velocity, learning_rate, *settings),
            lambda: _momentum(parameter, gradient, velocity, learning_rate, momentum, weight_decay),
        )[:2]  # fmt: skip
    inputs = {"Param": parameter, "Grad": gradient, "Velocity": velocity, "LearningRate": learning_rate}
    attrs = {"mu": momentum, "regularization_method": "l2_decay", "regularization_coeff": weight_decay}
    outputs = {"ParamOut": parameter, "VelocityOut": velocity}
    append_op("momentum", inputs, outputs, {"use_nesterov": False, **attrs})
    return parameter, velocity


def descend_(parameter, gradient, learning_rate):
    """parameter -= learning_rate * gradient, in place and in one pass. Returns the parameter."""
    if is_pir():
        return private.fast_or_public(
            "_C_ops.sgd_", (parameter, learning_rate, gradient, None, False),
            lambda: (_put(parameter, parameter - learning_rate * gradient),),
        )[0]  # fmt: skip
    inputs = {"Param": parameter, "Grad": gradient, "LearningRate": learning_rate}
    append_op("sgd", inputs, {"ParamOut": parameter}, {})
    return parameter


def check_finite_and_unscale_(values: list, scale) -> tuple[list, Any]:
    """(``values`` / ``scale``, [1] bool: one of them is inf or NaN), in place; one operation for all of them.

    Where the second is True, the first may be anything. The kernels multiply by 1 / scale.
    """
    if is_pir():
        return private.fast_or_public(
            "_C_ops.check_finite_and_unscale_", (values, scale),
            lambda: ([value / scale for value in values], _any_not_finite(values)),
        )  # fmt: skip
    found = new_value("check_finite_and_unscale", "bool")
    append_op("check_finite_and_unscale", {"X": values, "Scale": scale}, {"Out": values, "FoundInfinite": found}, {})
    return values, found


def append_unless(condition, body: Callable[[], None]) -> None:
    """Append what ``body()`` appends, in a branch that is taken where ``condition`` [1] bool is False; None: always
    there, without a branch. ``body`` must not create variables that outlive the step.

    On GPUs the host waits for ``condition``.
    """
    if condition is None:
        body()
    else:
        paddle.static.nn.cond(paddle.logical_not(condition), body, None)


def apply_gradients(optimizer, pairs: list) -> None:
    """Append the update of a user's optimizer for (parameter, gradient) pairs.

    ``minimize`` of an optimizer would have set the type of its states; without it Paddle 3.x cannot build the learning
    rate of a scheduler.
    """
    if not pairs:
        return
    if getattr(optimizer, "_dtype", "") is None:
        optimizer._dtype = pairs[0][0].dtype
    optimizer.apply_gradients(pairs)


def class_center_sample(local, num_local: int, num_sample: int):
    """A sample of rows [S] of a shard, in any order; ``local`` [G] int64: the positives, relative to its first class.

    It contains all of ``local``; the rest is drawn by Paddle's generator. S is ``num_sample``, or the number of
    positives where there are more. The operation is called as with one rank, without communication: its kernel for
    several ranks computes wrong labels when there are many positives for a small sample, or when the ranks sample
    different numbers of rows (see docs/gpu_program.md).
    """
    if is_pir():
        draw = private.require("_C_ops.class_center_sample")
        return draw(local, num_local, num_sample, RING, 0, 1, False, 0)[1]
    attrs = {"num_classes": num_local, "num_samples": num_sample, "ring_id": RING, "rank": 0, "nranks": 1}
    remapped, index = (new_value("class_center_sample", local.dtype) for _ in range(2))
    outputs = {"RemappedLabel": remapped, "SampledLocalClassCenter": index}
    append_op("class_center_sample", {"Label": local}, outputs, {**attrs, "fix_seed": False, "seed": 0})
    index.desc.set_shape([-1])  # Paddle 2.6 declares num_sample rows, but the kernel may return more
    return index


def margin_cross_entropy(cosine, label, margins: tuple, scale: float, rank: int, world_size: int):
    """The loss [G, 1], the same on every rank, from cosines [G, S] of this rank and remapped labels [G, 1]. GPU
    only."""
    if is_pir():
        kernel = private.require("_C_ops.margin_cross_entropy")
        return kernel(cosine, label, False, RING, rank, world_size, *margins, scale)[1]
    softmax, loss = (new_value("margin_cross_entropy", cosine.dtype) for _ in range(2))
    attrs = {"ring_id": RING, "rank": rank, "nranks": world_size, "scale": scale, "return_softmax": False}
    attrs.update(zip(("margin1", "margin2", "margin3"), margins))
    append_op("margin_cross_entropy", {"Logits": cosine, "Label": label}, {"Softmax": softmax, "Loss": loss}, attrs)
    return loss


def cross_entropy_of_same_memory(cosine, label):
    """A substitute for margin_cross_entropy in programs that are only analysed, where that kernel does not exist. It
    creates, keeps and overwrites tensors of the same sizes, except that it keeps no cosines for its gradient."""
    if is_pir():
        return private.require("_C_ops.cross_entropy_with_softmax")(cosine, label, False, True, True, -100, -1)[1]
    softmax, loss = (new_value("softmax_with_cross_entropy", cosine.dtype) for _ in range(2))
    inputs, outputs = {"Logits": cosine, "Label": label}, {"Softmax": softmax, "Loss": loss}
    append_op("softmax_with_cross_entropy", inputs, outputs, {"soft_label": False, "axis": -1})
    return loss


# --- slower, by public operations, for versions of Paddle 3 without the private ones above -----------------


def _put(target, value):
    """target := value, by a full copy; returns the new target.

    Not by ``paddle.assign(value, output=target)``, for which Paddle 3 computes wrong gradients (see autodiff).
    """
    return paddle.static.setitem(target, (slice(None),), value)


def _any_not_finite(values: list):
    finite = [paddle.reshape(paddle.all(paddle.isfinite(value)), [1]) for value in values]
    return paddle.logical_not(paddle.all(paddle.concat(finite), keepdim=True))


def _put_half_rows(table, index, rows) -> None:
    """Through float32, which represents every number of the half types."""
    whole = paddle.scatter(paddle.cast(table, "float32"), index, paddle.cast(rows, "float32"), True)
    _put(table, paddle.cast(whole, table.dtype))


def _momentum(parameter, gradient, velocity, learning_rate, momentum: float, weight_decay: float) -> tuple:
    moved = velocity * momentum + (gradient + parameter * weight_decay)
    after = parameter - learning_rate * moved
    return _put(parameter, after), _put(velocity, moved)
