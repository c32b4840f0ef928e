"""ResNet with improved residual units for faces: LResNetXXE-IR of InsightFace, FresResNet of PLSC 2.2, iresnet.

Source: ArcFace, arXiv:1801.07698, section 3.1 (BN-Conv-BN-PReLU-Conv-BN units, output E: BN-Dropout-FC-BN).
"""

from __future__ import annotations

from plsc.errors import ConfigError
from plsc.models.layers import BN_EPSILON, BuiltInModel, LayerBuilder
from plsc.models.registry import register_model

# Numbers of residual units in the four stages. All depths use the basic unit of two 3x3 convolutions; for 101 and 152
# see docs/add_a_backbone.md.
UNITS = {
    "ResNet10": (1, 1, 1, 1),  # not published; the smallest of the family, for small images and the CPU
    "ResNet18": (2, 2, 2, 2),
    "ResNet34": (3, 4, 6, 3),
    "ResNet50": (3, 4, 14, 3),
    "ResNet100": (3, 13, 30, 3),
    "ResNet101": (3, 4, 23, 3),
    "ResNet152": (3, 8, 36, 3),
    "ResNet200": (6, 26, 60, 6),
}
PROJECTIONS = ("shape", "channels")


class ResNet(BuiltInModel):
    """image [B, C, H, W] -> feature [B, E]; the last map is ceil(H/16) x ceil(W/16) with 8 * base_width channels.

    ``projection`` says which units have a 1x1 convolution and a BN on their shortcut: those where the ``shape``
    changes, the first of each stage; or those where the ``channels`` change, as in AdaFace's models, whose first
    unit takes every second row and column. Other options: BuiltInModel.
    """

    default_dropout = 0.4
    depths = UNITS

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
        projection: str = "shape",
    ):
        super().__init__(
            name, embedding_size, image_shape, data_format, dropout, base_width, bn_epsilon, input_scale, input_shift
        )
        if projection not in PROJECTIONS:
            raise ConfigError(
                f"model.options.projection: {projection!r} is not allowed; give one of {', '.join(PROJECTIONS)}"
            )
        self.projection = projection

    def function_options(self) -> dict[str, float | str]:
        return {**super().function_options(), "projection": self.projection}

    def network(self, builder: LayerBuilder, x):
        with builder.stage("stem"):
            x = builder.conv(builder.boundary(x), "stem.conv", self.base_width, 3, padding=1)
            x = builder.boundary(builder.prelu(builder.bn(x, "stem.bn"), "stem.prelu"))
        for stage, units in enumerate(self.depths[self.name]):
            with builder.stage(f"stage{stage + 1}"):
                x = self._stage(builder, x, f"stage{stage + 1}", units, self.base_width * 2**stage)
        with builder.stage("feature"):
            x = builder.to_nchw(builder.dropout(builder.bn(x, "head.bn"), self.dropout)).flatten(1)
            return builder.bn(builder.fc(x, "head.fc", self.embedding_size), "head.feature_bn")

    def _stage(self, builder: LayerBuilder, x, name: str, units: int, width: int):
        """``units`` residual units, the first with stride 2."""
        for unit in range(units):
            stride = 2 if unit == 0 else 1
            y = self.branch(builder, x, f"{name}.unit{unit}", width, stride)
            x = builder.boundary(builder.add(self._shortcut(builder, x, f"{name}.unit{unit}", width, stride), y))
        return x

    def branch(self, builder: LayerBuilder, x, name: str, width: int, stride: int):
        """The residual branch of a unit: BN - conv3x3 - BN - PReLU - conv3x3(stride) - BN."""
        y = builder.bn(x, f"{name}.bn1")
        y = builder.conv(y, f"{name}.conv1", width, 3, padding=1)
        y = builder.prelu(builder.bn(y, f"{name}.bn2"), f"{name}.prelu")
        y = builder.conv(y, f"{name}.conv2", width, 3, stride, padding=1)
        return builder.bn(y, f"{name}.bn3")

    def _shortcut(self, builder: LayerBuilder, x, name: str, width: int, stride: int):
        """x, by a 1x1 convolution and a BN where ``projection`` says so."""
        if builder.channels(x) == width and (stride == 1 or self.projection == "channels"):
            return builder.subsample(x, stride)
        return builder.bn(builder.conv(x, f"{name}.shortcut.conv", width, 1, stride), f"{name}.shortcut.bn")


for _name in UNITS:
    register_model(_name, source="ArcFace, arXiv:1801.07698, section 3.1")(ResNet)
