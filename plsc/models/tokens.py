"""The parts of a vision transformer over tokens [B, N, D]: patches, linear layers, attention, MLP, what training drops.

Parameters are ``backbone.<name>.<part>``, as those of LayerBuilder.
"""

from __future__ import annotations

import math

from plsc.models.layers import LayerBuilder

DEVIATION = 0.02  # of initial weights: a normal distribution cut off at twice that
LAYER_NORM_EPSILON = 1e-5


def patches(builder: LayerBuilder, image, width: int, size: int):
    """image [B, C, H, W] -> tokens [B, H // size * W // size, width], row by row: a linear layer over each patch.

    Weight and bias start uniform in +-1 / sqrt(inputs).
    """
    import paddle

    bound = 1.0 / math.sqrt(builder.channels(image) * size * size)
    start = paddle.nn.initializer.Uniform(-bound, bound)
    layer = paddle.nn.Conv2D(
        builder.channels(image), width, size, size,
        weight_attr=_attr("patches", "weight", start), bias_attr=_attr("patches", "bias", start),
    )  # fmt: skip
    return layer(image).flatten(2).transpose([0, 2, 1])


def parameter(name: str, shape: list[int], trainable: bool = True):
    """A tensor of trained numbers. One that is not trainable keeps its first numbers, for other settings to use."""
    import paddle

    attr = paddle.ParamAttr(name=f"backbone.{name}", initializer=_truncated_normal(), trainable=trainable)
    return paddle.create_parameter(shape, "float32", attr=attr)


def linear(x, name: str, out: int, bias: bool = True):
    """Fully connected layer over the last axis."""
    import paddle

    layer = paddle.nn.Linear(
        x.shape[-1], out,
        weight_attr=_attr(name, "weight", _truncated_normal()),
        bias_attr=_attr(name, "bias", paddle.nn.initializer.Constant(0.0)) if bias else False,
    )  # fmt: skip
    return layer(x)


def layer_norm(x, name: str):
    """Layer norm over the features of a token."""
    import paddle

    layer = paddle.nn.LayerNorm(
        x.shape[-1], LAYER_NORM_EPSILON, weight_attr=_attr(name, "weight", None), bias_attr=_attr(name, "bias", None)
    )
    return layer(x)


def attention(x, name: str, heads: int):
    """Multi-head self-attention, appendix A of ViT: softmax(q k^T / sqrt(D / heads)) v for each head."""
    import paddle

    count, width = x.shape[1], x.shape[2]
    head = width // heads
    x = linear(x, f"{name}.qkv", 3 * width, bias=False).reshape([-1, count, 3, heads, head]).transpose([2, 0, 3, 1, 4])
    queries, keys, values = paddle.unstack(x, axis=0)
    scores = paddle.scale(paddle.matmul(queries, keys, transpose_y=True), head**-0.5)
    y = paddle.matmul(paddle.nn.functional.softmax(scores, axis=-1), values)
    return linear(y.transpose([0, 2, 1, 3]).reshape([-1, count, width]), f"{name}.out", width)


def mlp(x, name: str, ratio: int):
    """Two linear layers with ReLU6 between them."""
    import paddle

    width = x.shape[-1]
    return linear(paddle.nn.functional.relu6(linear(x, f"{name}.fc1", ratio * width)), f"{name}.fc2", width)


def drop_path(y, rate: float):
    """``y`` for a sample with probability 1 - rate, divided by that; zeros for the others."""
    import paddle

    if rate == 0.0:
        return y
    kept = paddle.cast(_uniform(y, [1, 1]) >= rate, y.dtype)
    return paddle.multiply(y, paddle.scale(kept, 1.0 / (1.0 - rate)))


def random_places(x, count: int, kept: int):
    """[B, kept, count] of zeros and ones, which select ``kept`` of ``count`` tokens without replacement."""
    import paddle

    order = paddle.argsort(_uniform(x, [count]), axis=1)[:, :kept]
    places = paddle.nn.functional.one_hot(order, count).reshape([-1, kept, count])  # 2.6 has lost the sizes
    places.stop_gradient = True
    return places


def select(x, places):
    """The tokens [B, kept, D] of x [B, count, D]."""
    import paddle

    return paddle.matmul(places, x)


def put_back(x, places, token):
    """x [B, kept, D] -> [B, count, D]: each token in its place, ``token`` [1, 1, D] in all others."""
    import paddle

    free = paddle.scale(paddle.sum(places, axis=1), -1.0, 1.0).unsqueeze(-1)
    return paddle.add(paddle.matmul(places, x, transpose_x=True), paddle.multiply(free, token))


def _uniform(x, shape: list[int]):
    """Random numbers in [0, 1) of shape [B, *shape] for the batch of ``x``, from Paddle's generator."""
    import paddle

    batch = x.shape[0] if x.shape[0] > 0 else paddle.shape(x)[0]
    numbers = paddle.uniform([batch, *shape], "float32", 0.0, 1.0)
    numbers.stop_gradient = True
    return numbers


def _truncated_normal():
    import paddle

    return paddle.nn.initializer.TruncatedNormal(0.0, DEVIATION)


def _attr(name: str, part: str, initializer):
    import paddle

    return paddle.ParamAttr(name=f"backbone.{name}.{part}", initializer=initializer)
