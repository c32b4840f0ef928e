"""LayerBuilder, which creates and applies named layers, and BuiltInModel, the base class of the built-in models."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from plsc.errors import ConfigError
from plsc.models.base_model import BaseModel
from plsc.models.stages import Stages

BN_EPSILON = 2e-5  # as published for the InsightFace models, and in PLSC 0.x (PLSC 2.2, arcface_torch: 1e-5)
BN_MOMENTUM = 0.9  # running := 0.9 * running + 0.1 * batch
PRELU_SLOPE = 0.25
LAYOUTS = ("NCHW", "NHWC")


class LayerBuilder:
    """Creates layers with parameters ``backbone.<name>.<part>`` and applies them at once.

    The names depend only on ``name``, so a model has the same names in every program. The shapes of the weights do not
    depend on ``data_format``.
    """

    def __init__(self, data_format: str, is_train: bool, bn_epsilon: float = BN_EPSILON, stages: Stages | None = None):
        self.data_format: Any = data_format
        self.is_train = is_train
        self.bn_epsilon = bn_epsilon
        self._stages = Stages() if stages is None else stages

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A context for the layers of the stage ``name`` (plsc.models.stages)."""
        before = self.is_train
        with self._stages.stage(name, before) as self.is_train:
            yield
        self.is_train = before

    def boundary(self, x):
        """``x``, as a value that ``model.recompute`` keeps (BaseModel.boundary)."""
        self._stages.boundaries.append(x)
        return x

    def to_layout(self, image):
        """[B, C, H, W] -> the layout of the network."""
        return image if self.data_format == "NCHW" else image.transpose([0, 2, 3, 1])

    def to_nchw(self, x):
        """The layout of the network -> [B, C, H, W], so that the inputs of a following fc have a fixed order."""
        return x if self.data_format == "NCHW" else x.transpose([0, 3, 1, 2])

    def channels(self, x) -> int:
        return x.shape[1 if self.data_format == "NCHW" else 3]

    def spatial_size(self, x) -> list[int]:
        """[H, W] of ``x``."""
        return list(x.shape[2:4] if self.data_format == "NCHW" else x.shape[1:3])

    def add(self, x, y):
        import paddle

        return paddle.add(x, y)  # `x + y` gives a DeprecationWarning on Paddle 2.6

    def conv(self, x, name: str, out: int, kernel, stride: int = 1, padding: int = 0, groups: int = 1):
        """Convolution without bias; initial weights N(0, 2 / fan_out), Eq. 14 of arXiv:1502.01852, as PLSC 0.x."""
        import paddle

        kernel = [kernel, kernel] if isinstance(kernel, int) else list(kernel)
        deviation = math.sqrt(2.0 / (out // groups * kernel[0] * kernel[1]))
        layer = paddle.nn.Conv2D(
            self.channels(x), out, kernel, stride, padding, groups=groups, data_format=self.data_format,
            weight_attr=_attr(name, "weight", paddle.nn.initializer.Normal(0.0, deviation)), bias_attr=False,
        )  # fmt: skip
        return layer(x)

    def bn(self, x, name: str):
        """Batch norm over the channels of a 4-D ``x`` in the layout of the network, or over E of [B, E]."""
        import paddle

        flat = len(x.shape) == 2
        norm = paddle.nn.BatchNorm1D if flat else paddle.nn.BatchNorm2D
        layer = norm(
            x.shape[1] if flat else self.channels(x), BN_MOMENTUM, self.bn_epsilon,
            weight_attr=_attr(name, "weight"), bias_attr=_attr(name, "bias"),
            data_format="NCL" if flat else self.data_format, name=f"backbone.{name}.running",
        )  # fmt: skip
        return self._mode(layer)(x)

    def subsample(self, x, stride: int):
        """Every ``stride``-th row and column, from the first; ``x`` itself with stride 1."""
        import paddle

        if stride == 1:
            return x
        return paddle.nn.functional.max_pool2d(x, 1, stride, data_format=self.data_format)

    def prelu(self, x, name: str):
        """PReLU with one slope per channel."""
        import paddle

        layer = paddle.nn.PReLU(
            self.channels(x), PRELU_SLOPE, weight_attr=_attr(name, "weight"), data_format=self.data_format
        )
        return layer(x)

    def dropout(self, x, rate: float):
        """Dropout with probability ``rate``; in training, other values are scaled by 1 / (1 - rate)."""
        import paddle

        return self._mode(paddle.nn.Dropout(rate))(x) if rate > 0 else x

    def fc(self, x, name: str, out: int, bias: bool = True):
        """Fully connected layer over the last axis; initial weights N(0, 2 / fan_out), bias 0."""
        import paddle

        initial = paddle.nn.initializer
        layer = paddle.nn.Linear(
            x.shape[-1], out,
            weight_attr=_attr(name, "weight", initial.Normal(0.0, math.sqrt(2.0 / out))),
            bias_attr=_attr(name, "bias", initial.Constant(0.0)) if bias else False,
        )  # fmt: skip
        return layer(x)

    def squeeze_excite(self, x, name: str, hidden: int):
        """Each channel times a weight in (0, 1) from the means of all channels, Eq. 2 to 4 of arXiv:1709.01507."""
        import paddle

        axes = [2, 3] if self.data_format == "NCHW" else [1, 2]
        means = paddle.mean(x, axis=axes, keepdim=True)
        y = paddle.nn.functional.relu(self.conv(means, f"{name}.reduce", hidden, 1))
        y = self.conv(y, f"{name}.expand", self.channels(x), 1)
        return paddle.multiply(x, paddle.nn.functional.sigmoid(y))

    def _mode(self, layer):
        layer.train() if self.is_train else layer.eval()
        return layer


def _attr(name: str, part: str, initializer=None):
    import paddle

    return paddle.ParamAttr(name=f"backbone.{name}.{part}", initializer=initializer)


class BuiltInModel(BaseModel):
    """Base class of the built-in models, with checked settings. Subclasses define ``network(builder, x)``.

    image_shape: (C, H, W) with any H, W >= 1, as every convolution of stride 2 is padded and rounds up.
    data_format: the layout inside the network; the image is NCHW in any case. dropout: None for the published value.
    base_width: 64 for the published model; all widths are proportional to it. bn_epsilon: added to the variances of
    every batch norm. input_scale, input_shift: the first layer gets image * input_scale + input_shift; 0.5 and 0.5 turn
    (pixels - 127.5) / 127.5 into pixels / 255. Raises ConfigError for a value out of range.
    """

    default_dropout = 0.0

    def __init__(
        self,
        name: str,
        embedding_size: int = 512,
        image_shape=(3, 112, 112),
        data_format: str = "NCHW",
        dropout: float | None = None,
        base_width: int = 64,
        bn_epsilon: float = BN_EPSILON,
        input_scale: float = 1.0,
        input_shift: float = 0.0,
    ):
        self.name = name
        self.embedding_size = _positive_int("embedding_size", embedding_size)
        self.image_shape = _image_shape(image_shape)
        self.base_width = _positive_int("base_width", base_width)
        self.dropout = self.default_dropout if dropout is None else dropout
        self.data_format = data_format
        if data_format not in LAYOUTS:
            raise ConfigError(f"model.data_format: {data_format!r} is not a layout; allowed: {', '.join(LAYOUTS)}")
        if isinstance(self.dropout, (bool, str)) or not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.dropout: {dropout!r} is out of range; allowed: 0 <= dropout < 1")
        self.bn_epsilon = _within("bn_epsilon", bn_epsilon, 1e-12, 1.0)
        self.input_scale = _within("input_scale", input_scale, 1e-6, 1e6)
        self.input_shift = _within("input_shift", input_shift, -1e6, 1e6)

    def function_options(self) -> dict[str, float | str]:
        """The options by which the same weights give other features."""
        return {"bn_epsilon": self.bn_epsilon, "input_scale": self.input_scale, "input_shift": self.input_shift}

    def build_network(self, input, label=None, is_train: bool = True):
        """image [B, C, H, W] float32 -> feature [B, embedding_size] float32."""
        fed = list(input.shape[1:])
        if fed != self.image_shape:
            raise ConfigError(f"model.image_shape: {self.image_shape}, but the input image is {fed}; make them equal")
        builder = LayerBuilder(self.data_format, is_train, self.bn_epsilon, self._stages)
        return self.network(builder, self._scaled(builder.to_layout(input)))

    def _scaled(self, x):
        import paddle

        if self.input_scale == 1.0 and self.input_shift == 0.0:
            return x
        return paddle.scale(x, scale=self.input_scale, bias=self.input_shift)

    def network(self, builder: LayerBuilder, x):
        """Build the layers, each within a ``builder.stage``: x [B, C, H, W] or [B, H, W, C] -> feature
        [B, embedding_size]."""
        raise NotImplementedError


def _positive_int(key: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"model.{key}: {value!r} is not allowed; it must be a whole number of 1 or more")
    return value


def _within(option: str, value, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ConfigError(f"model.options.{option}: {value!r} is not allowed; give a number in [{least:g}, {most:g}]")
    return float(value)


def _image_shape(value) -> list[int]:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ConfigError(f"model.image_shape: {value!r} is not allowed; give [channels, height, width]")
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    if not whole or min(value) < 1:
        raise ConfigError(
            f"model.image_shape: {list(value)} is not allowed; channels, height and width must be whole numbers, "
            f"the smallest image is 1x1"
        )
    return list(value)
