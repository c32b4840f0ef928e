"""The MobileFaceNets of arcface_torch, `mbf` and `mbf_large`: wider than that of the paper, with a linear last layer.

Source: insightface, recognition/arcface_torch/backbones/mobilefacenet.py. Its widths are here multiples of base_width.
"""

from __future__ import annotations

from plsc.models.layers import BuiltInModel, LayerBuilder
from plsc.models.mobilefacenet import bottleneck, conv_bn
from plsc.models.registry import register_model

# name: (scale of the widths between bottlenecks, bottlenecks of the same shape in each of the four stages)
LAYOUTS = {"WideMobileFaceNet": (2, (0, 4, 6, 2)), "LargeMobileFaceNet": (4, (2, 8, 12, 4))}
# Each stage: its width as a multiple of scale * base_width, and the hidden channels, as multiples of base_width, of its
# first bottleneck (stride 2; stage 1 has none) and of the others.
STAGES = ((1, None, 2), (1, 2, 2), (2, 4, 4), (2, 8, 4))


class WideMobileFaceNet(BuiltInModel):
    """image [B, C, H, W] -> feature [B, E], as arcface_torch's `mbf` (WideMobileFaceNet) or `mbf_large`.

    The global convolution is as large as the last map, ceil(H/16) x ceil(W/16): 7x7 at 112x112. WideMobileFaceNet has
    in place of the first stage a convolution in base_width groups of two channels.
    """

    def network(self, builder: LayerBuilder, x):
        scale, repeats = LAYOUTS[self.name]
        width = self.base_width
        with builder.stage("stem"):
            x = conv_bn(builder, builder.boundary(x), "stem", scale * width, 3, stride=2, padding=1)
            if repeats[0] == 0:
                x = conv_bn(builder, x, "stem_grouped", scale * width, 3, padding=1, groups=width)
            builder.boundary(x)
        for number, (shape, count) in enumerate(zip(STAGES, repeats), start=1):
            with builder.stage(f"stage{number}"):
                x = self._stage(builder, x, number, shape, count)
        with builder.stage("feature"):
            x, size = conv_bn(builder, x, "expand", 8 * width, 1), builder.spatial_size(x)
            x = conv_bn(builder, x, "global_depthwise", 8 * width, size, groups=8 * width, linear=True)
            x = builder.dropout(builder.to_nchw(x).flatten(1), self.dropout)
            return builder.bn(builder.fc(x, "head.fc", self.embedding_size, bias=False), "head.feature_bn")

    def _stage(self, builder: LayerBuilder, x, number: int, shape: tuple, count: int):
        """A bottleneck with stride 2, if ``shape`` says its hidden channels, and ``count`` that keep the shape."""
        multiple, first, others = shape
        hidden = [others] * count if first is None else [first, *[others] * count]
        for unit, channels in enumerate(hidden):
            stride = 2 if unit == 0 and first is not None else 1
            out = multiple * LAYOUTS[self.name][0] * self.base_width
            x = bottleneck(builder, x, f"stage{number}.unit{unit}", channels * self.base_width, out, stride)
        return x


for _name in LAYOUTS:
    register_model(_name, source="MobileFaceNets, arXiv:1804.07573; arcface_torch")(WideMobileFaceNet)
