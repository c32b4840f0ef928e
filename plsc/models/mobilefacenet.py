"""MobileFaceNet, arXiv:1804.07573, table 1."""

from __future__ import annotations

from plsc.models.layers import BuiltInModel, LayerBuilder
from plsc.models.registry import register_model

# The table's rows of bottlenecks: expansion t of the input's channels, output channels as a multiple of base_width,
# repeats n, stride s of the first.
BOTTLENECKS = ((2, 1, 5, 2), (4, 2, 1, 2), (2, 2, 6, 1), (4, 2, 1, 2), (2, 2, 2, 1))


@register_model("MobileFaceNet", source="MobileFaceNets, arXiv:1804.07573, table 1")
class MobileFaceNet(BuiltInModel):
    """image [B, C, H, W] -> feature [B, E]. The paper has E = 128 and 112x112 images.

    The kernel of the global depthwise convolution is as large as the last map, ceil(H/16) x ceil(W/16): 7x7 at 112x112.
    The paper has no dropout; with ``dropout`` it is before the last layer.
    """

    def network(self, builder: LayerBuilder, x):
        width = self.base_width
        with builder.stage("stem"):
            x = conv_bn(builder, builder.boundary(x), "stem", width, 3, stride=2, padding=1)
            x = builder.boundary(conv_bn(builder, x, "stem_depthwise", width, 3, padding=1, groups=width))
        for row, (expansion, multiple, repeats, stride) in enumerate(BOTTLENECKS):
            with builder.stage(f"stage{row + 1}"):
                for unit in range(repeats):
                    name = f"stage{row + 1}.unit{unit}"
                    hidden = expansion * builder.channels(x)
                    x = bottleneck(builder, x, name, hidden, width * multiple, stride if unit == 0 else 1)
        with builder.stage("feature"):
            x = conv_bn(builder, x, "expand", 8 * width, 1)
            size = builder.spatial_size(x)
            x = conv_bn(builder, x, "global_depthwise", 8 * width, size, groups=8 * width, linear=True)
            x = conv_bn(builder, builder.dropout(x, self.dropout), "feature", self.embedding_size, 1, linear=True)
            return builder.to_nchw(x).flatten(1)


def bottleneck(builder: LayerBuilder, x, name: str, hidden: int, out: int, stride: int):
    """1x1 to ``hidden`` channels, 3x3 depthwise (stride), linear 1x1 to ``out``; plus x if the shape is unchanged."""
    y = conv_bn(builder, x, f"{name}.expand", hidden, 1)
    y = conv_bn(builder, y, f"{name}.depthwise", hidden, 3, stride=stride, padding=1, groups=hidden)
    y = conv_bn(builder, y, f"{name}.project", out, 1, linear=True)
    return builder.boundary(builder.add(x, y) if stride == 1 and builder.channels(x) == out else y)


def conv_bn(builder: LayerBuilder, x, name: str, out: int, kernel, linear: bool = False, **shape):
    """Convolution - BN - PReLU, without the PReLU if ``linear``."""
    x = builder.bn(builder.conv(x, f"{name}.conv", out, kernel, **shape), f"{name}.bn")
    return x if linear else builder.prelu(x, f"{name}.prelu")
