"""Kernels of half precision on CPUs: to the bit Paddle's in float32, rounded to the nearest by NumPy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle.nn import functional

from plsc.backend import autodiff, half_kernels, static
from plsc.backend.compiler import CompileError
from plsc.backend.cpu import run_in_order
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.errors import ConfigError
from plsc.models import BaseModel
from plsc.parallel.environment import Environment

DTYPES = ("bfloat16", "float16") if static.is_pir() else ("bfloat16",)
SHAPE = (2, 4, 6, 6)
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
OF_RESULT = ("softmax", "sigmoid")


def to_half(values, dtype):
    """float32 ``values``, rounded to the nearest half numbers, ties to even."""
    if dtype == "float16":
        return values.astype("float16").astype("float32")
    bits = values.view("uint32").astype("uint64")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype("uint32").view("float32")


def parameter(name, shape, dtype="half"):
    """(name, shape, which type it has in half precision)."""
    return name, shape, dtype


def normalised(x, scale, bias, mean, variance):
    return functional.batch_norm(x, mean, variance, scale, bias, training=True)


CHANNEL = [4]
CASES = {  # the operation, its other inputs
    "convolution": (lambda x, w: functional.conv2d(x, w, stride=2, padding=1), [parameter("w", [5, 4, 3, 3])]),
    "depthwise": (lambda x, w: functional.conv2d(x, w, groups=4), [parameter("w", [4, 1, 3, 3])]),
    "product": (paddle.matmul, [parameter("w", [6, 3])]),
    "sum": (lambda x, w: x + w, [parameter("w", [6])]),
    "prelu": (lambda x, w: functional.prelu(x, w), [parameter("w", CHANNEL)]),
    "pool": (lambda x: functional.avg_pool2d(x, 2), []),
    "softmax": (functional.softmax, []),
    "gelu": (functional.gelu, []),
    "sigmoid": (functional.sigmoid, []),
    "layer norm": (lambda x, w, b: functional.layer_norm(x, 6, w, b),
                   [parameter("w", [6], "float32"), parameter("b", [6], "float32")]),
    "unstacked": (lambda x: paddle.multiply(*paddle.unstack(x, axis=0)), []),
}  # fmt: skip


def run(build, others, dtype, feed, weight):
    """Result and gradients of sum(result * weight), all as float32."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):

        def given(name, shape, half):
            value = paddle.static.data(name, shape, "float32")
            value.stop_gradient = False
            return autodiff.as_leaf(paddle.cast(value, dtype) if half else value)

        leaves = [given("x", SHAPE, dtype != "float32")]
        leaves += [given(name, shape, dtype != "float32" and kind == "half") for name, shape, kind in others]
        result = build(*leaves)
        upper = paddle.static.data("upper", result.shape, "float32")
        found = autodiff.gradients_from(result, paddle.cast(upper, result.dtype), leaves)
        values = [paddle.cast(value, "float32") for value in (result, *found)]
    feed = {**feed, "upper": weight[: int(np.prod(result.shape))].reshape(result.shape)}
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(paddle.static.Scope()):
        return executor.run(main, feed=feed, fetch_list=values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_it_is_float32_rounded(name, dtype):
    paddle.enable_static()
    run_in_order()
    half_kernels.load(dtype)
    build, others = CASES[name]
    rng = np.random.default_rng(1)
    draw = lambda shape: to_half(rng.standard_normal(shape).astype("float32"), dtype)  # noqa: E731
    feed = {"x": draw(SHAPE), **{key: draw(shape) for key, shape, _ in others}}
    upper = draw(600)
    exact, got = (run(build, others, kind, feed, upper) for kind in ("float32", dtype))
    kinds = ["half", "half", *(kind for _, _, kind in others)]
    np.testing.assert_array_equal(got[0], to_half(exact[0], dtype))
    for kind, want, value in zip(kinds[1:], exact[1:], got[1:]):
        want = to_half(want, dtype) if kind == "half" else want
        # these gradients are made of the rounded result, at most 1, in two or three products and differences
        off = 4 * ROUNDOFF[dtype] * np.abs(upper).max() if name in OF_RESULT else 0.0
        np.testing.assert_allclose(value, want, rtol=0, atol=off)
    assert (to_half(exact[0], dtype) != exact[0]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_round_to_the_nearest(dtype):
    paddle.enable_static()
    half_kernels.load(dtype)
    values = np.random.default_rng(2).standard_normal(1000).astype("float32")
    values[:4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, np.inf, -0.0  # two ties
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        back = paddle.cast(paddle.cast(paddle.static.data("x", [1000], "float32"), dtype), "float32")
    (got,) = paddle.static.Executor(paddle.CPUPlace()).run(main, feed={"x": values}, fetch_list=[back])
    np.testing.assert_array_equal(got, to_half(values, dtype))


def test_paddle_26_refuses_float16(monkeypatch):
    monkeypatch.setattr(half_kernels.static, "is_pir", lambda: False)
    with pytest.raises(CompileError, match="set bfloat16, or use Paddle 3"):
        half_kernels.load("float16")


def test_without_a_compiler_it_says_why(monkeypatch):
    def none(source):
        raise CompileError("compiler 'g++' not found")

    monkeypatch.setattr(half_kernels, "compiled_library", none)
    half_kernels._load.cache_clear()
    with pytest.raises(CompileError, match="not found"):
        half_kernels.load("bfloat16")


class Net(BaseModel):
    def __init__(self, operation):
        super().__init__()
        self._operation = operation

    def build_network(self, input, label, is_train=True):
        x = self._operation(paddle.flatten(paddle.nn.Conv2D(3, 2, 3)(input), 1))
        return paddle.nn.Linear(8, 4)(x)


def build_net(operation, white=(), black=()):
    paddle.enable_static()
    lists = {"custom_white_list": list(white), "custom_black_list": list(black)}
    half = {"enabled": True, "dtype": "bfloat16", "level": "O2", **lists}
    config = Config.from_dict({
        "device": "cpu", "train_batch_size": 4, "model": {"image_shape": [3, 4, 4], "data_format": "NCHW"},
        "classifier": {"num_classes": 5}, "mixed_precision": half,
    })  # fmt: skip
    return build_train(config, UserObjects(model=Net(operation)), Environment(0, 1, device="cpu"), seed=7)


# Paddle 2.6 runs few operations in half precision that no list names
LISTS = {"sin": (paddle.sin, "sin", ["sin"])}
if static.is_pir():
    LISTS["topk"] = lambda x: paddle.topk(x, 8)[0], "top_k_v2", []


@pytest.mark.parametrize("name", LISTS)
def test_an_operation_without_a_kernel_is_named_with_what_to_do(name, caplog):
    operation, listed, white = LISTS[name]
    with pytest.raises(ConfigError) as raised:
        build_net(operation, white)
    assert str(raised.value) == (
        f"mixed_precision.dtype='bfloat16': a CPU has no kernel for the operation {name} in bfloat16; keep it in "
        f"float32 by mixed_precision.custom_black_list: [{listed}], or train this model on a GPU"
    )
    build_net(operation, black=[listed])
    assert "GPU" not in caplog.text  # of Paddle 2.6, about the kernels of one that is not there


def test_an_error_of_the_model_itself_is_not_one_of_half_precision():
    with pytest.raises(ConfigError, match="build_network raised "):
        build_net(lambda x: paddle.reshape(x, [3, 7]))
