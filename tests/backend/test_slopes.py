"""The gradient of the slopes of PReLU that replaces Paddle's in half precision. There are no kernels of PReLU in half
precision on CPUs, so it replaces that of float32 here; its sum runs in bfloat16."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.backend import autodiff, program_view, slopes, static

paddle.enable_static()
SHAPE = (3, 4, 5, 6)


def run(build, feed, fetch):
    """The values of ``fetch(*build())`` on a CPU."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        values = fetch(*build())
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(paddle.static.Scope()):
        executor.run(startup)
        return main, [np.asarray(value) for value in executor.run(main, feed=feed, fetch_list=values)]


def image_of(name="image"):
    """An image that has a gradient: without one Paddle 3.3.1's kernel of the gradient of PReLU crashes."""
    return paddle.static.data(name, SHAPE, "float32") + paddle.static.create_parameter([5, 6], "float32", name="other")


def slope(name, count):
    start = paddle.nn.initializer.Assign(np.linspace(-0.3, 0.6, count, dtype="float32"))
    return paddle.static.create_parameter([count], "float32", name=name, default_initializer=start)


CASES = {  # (number of slopes, layout, uses of the slope)
    "a slope for each channel": (4, "NCHW", 1),
    "channels last": (6, "NHWC", 1),
    "one slope": (1, "NCHW", 1),
    "used twice": (4, "NCHW", 2),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_gradient(monkeypatch, case):
    count, layout, uses = CASES[case]
    monkeypatch.setattr(slopes, "HALF", ("float32", "fp32"))
    rng = np.random.default_rng(1)
    image, weight = (rng.standard_normal(SHAPE).astype("float32") for _ in range(2))

    def build():
        value = paddle.static.data("image", SHAPE, "float32")
        alpha, other = slope("alpha", count), paddle.static.create_parameter([5, 6], "float32", name="other")
        value = value + other * 0.0
        for _ in range(uses):
            value = paddle.nn.functional.prelu(value, alpha, data_format=layout)
        return paddle.sum(value * paddle.static.data("weight", SHAPE, "float32")), [alpha, other]

    def both(loss, parameters):
        plain = autodiff.gradients_from(loss, paddle.ones_like(loss), parameters)
        return [*plain, *slopes.sum_in_float32(parameters, plain)]

    main, (plain, plain_other, replaced, same) = run(build, {"image": image, "weight": weight}, both)
    np.testing.assert_array_equal(same, plain_other)  # that of another parameter stays
    alpha = np.linspace(-0.3, 0.6, count).astype("float32").astype(np.float64)
    channels = 1 if layout == "NCHW" else 3
    shaped = alpha.reshape([-1 if axis == channels else 1 for axis in range(4)])
    expected, value, dout = 0.0, image.astype(np.float64), weight.astype(np.float64)
    values = [value]
    for _ in range(uses):
        values.append(np.where(values[-1] > 0, values[-1], shaped * values[-1]))
    for x in reversed(values[:-1]):
        part = np.minimum(x, 0) * dout
        axes = tuple(axis for axis in range(4) if count == 1 or axis != channels)
        expected = expected + part.sum(axes)
        dout = np.where(x > 0, dout, shaped * dout)
    for got in (plain, replaced):  # sums of 360 float32 products of size 1
        np.testing.assert_allclose(got, np.reshape(expected, [count]), rtol=0, atol=2e-5)
    kinds = [op.kind for op in program_view.operations(main)]
    assert kinds.count("minimum") + kinds.count("elementwise_min") == uses


def test_the_sum_of_a_million_is_in_float32():
    """1,048,576 products of -1: a sum in bfloat16 stands still at 256, and float16 ends at 65504."""
    def build():
        ones = paddle.ones([4, 2, 512, 256], "bfloat16")
        return (slopes.SlopeGradient(0, paddle.scale(ones, -1.0), ones, 1).total([2]),)

    _, (got,) = run(build, {}, lambda value: [value])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [-524288.0] * 2)  # exact in float32


def test_what_overflows_is_not_finite():
    """So the step is skipped. Also where Paddle's kernel would return a finite number: nowhere is one lost."""
    def build():
        x = paddle.full([1, 2, 2, 2], -3e38, "bfloat16")
        return (slopes.SlopeGradient(0, x, paddle.full([1, 2, 2, 2], 3.0, "bfloat16"), 1).total([2]),)

    _, (got,) = run(build, {}, lambda value: [value])
    assert np.isinf(got).all()


def test_it_stands_where_paddles_gradient_is_made(monkeypatch):
    """Not at the end of the backward pass, to which the images of all layers would have to be kept."""
    monkeypatch.setattr(slopes, "HALF", ("float32", "fp32"))

    def build():
        value, parameters = image_of(), []
        for number in range(3):
            parameters.append(slope(f"alpha{number}", 4))
            value = paddle.nn.functional.prelu(paddle.exp(value), parameters[-1])
        loss = paddle.sum(value)
        return loss, parameters

    def replaced(loss, parameters):
        plain = autodiff.gradients_from(loss, paddle.ones_like(loss), parameters)
        return slopes.sum_in_float32(parameters, plain)

    main, _ = run(build, {"image": np.zeros(SHAPE, "float32")}, replaced)
    kinds = [op.kind for op in program_view.operations(main)]
    places = [place for place, kind in enumerate(kinds) if kind == "prelu_grad"]
    sums = [place for place, kind in enumerate(kinds) if kind in ("minimum", "elementwise_min")]
    assert len(places) == len(sums) == 3
    for place, total, following in zip(places, sums, [*places[1:], len(kinds)]):
        assert place < total < following


def test_float32_keeps_paddles_gradient():
    def build():
        alpha = slope("alpha", 4)
        return paddle.sum(paddle.nn.functional.prelu(image_of(), alpha)), [alpha]

    def same(loss, parameters):
        plain = autodiff.gradients_from(loss, paddle.ones_like(loss), parameters)
        assert slopes.sum_in_float32(parameters, plain)[0] is plain[0]
        return plain

    run(build, {"image": np.zeros(SHAPE, "float32")}, same)
