"""ResNet with improved residual units for faces: LResNetXXE-IR of InsightFace, FresResNet of PLSC 2.2, iresnet.

Source: ArcFace, arXiv:1801.07698, section 3.1 (BN-Conv-BN-PReLU-Conv-BN units, output E: BN-Dropout-FC-BN).
"""

from __future__ import annotations

from plsc.models.layers import BuiltInModel, LayerBuilder
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
}


class ResNet(BuiltInModel):
    """image [B, C, H, W] -> feature [B, E]; the last map is ceil(H/16) x ceil(W/16) with 8 * base_width channels."""

    default_dropout = 0.4

    def network(self, builder: LayerBuilder, x):
        x = builder.conv(x, "stem.conv", self.base_width, 3, padding=1)
        x = builder.prelu(builder.bn(x, "stem.bn"), "stem.prelu")
        for stage, units in enumerate(UNITS[self.name]):
            width = self.base_width * 2**stage
            for unit in range(units):
                x = residual_unit(builder, x, f"stage{stage + 1}.unit{unit}", width, stride=2 if unit == 0 else 1)
        x = builder.to_nchw(builder.dropout(builder.bn(x, "head.bn"), self.dropout)).flatten(1)
        return builder.bn(builder.fc(x, "head.fc", self.embedding_size), "head.feature_bn")


def residual_unit(builder: LayerBuilder, x, name: str, width: int, stride: int):
    """BN - conv3x3 - BN - PReLU - conv3x3(stride) - BN, plus x, through a 1x1 conv-BN if the shape changes."""
    y = builder.bn(x, f"{name}.bn1")
    y = builder.conv(y, f"{name}.conv1", width, 3, padding=1)
    y = builder.prelu(builder.bn(y, f"{name}.bn2"), f"{name}.prelu")
    y = builder.conv(y, f"{name}.conv2", width, 3, stride, padding=1)
    y = builder.bn(y, f"{name}.bn3")
    if stride != 1 or builder.channels(x) != width:
        x = builder.bn(builder.conv(x, f"{name}.shortcut.conv", width, 1, stride), f"{name}.shortcut.bn")
    return builder.add(x, y)


for _name in UNITS:
    register_model(_name, source="ArcFace, arXiv:1801.07698, section 3.1")(ResNet)
