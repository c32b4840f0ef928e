"""ResNet with squeeze-and-excitation for faces: the IR-SE models of AdaFace and face.evoLVe.

Source: squeeze and excitation, arXiv:1709.01507, section 3; the units are those of ArcFace, arXiv:1801.07698.
"""

from __future__ import annotations

from plsc.models.layers import LayerBuilder
from plsc.models.registry import register_model
from plsc.models.resnet import UNITS, ResNet

REDUCTION = 16  # r of the paper: channels for each one of the hidden layer
SE_UNITS = {f"SE{name}": units for name, units in UNITS.items()}


class SEResNet(ResNet):
    """ResNet whose residual branches end in squeeze-and-excitation. Options and shapes: ResNet."""

    depths = SE_UNITS

    def branch(self, builder: LayerBuilder, x, name: str, width: int, stride: int):
        y = super().branch(builder, x, name, width, stride)
        return builder.squeeze_excite(y, f"{name}.se", max(width // REDUCTION, 1))


for _name in SE_UNITS:
    register_model(_name, source="ArcFace, arXiv:1801.07698, section 3.1, and arXiv:1709.01507")(SEResNet)
