"""How other projects name the layers of the ResNets that PLSC has too.

arcface_torch (MagFace, PLSC 2.4 and others use its names): recognition/arcface_torch/backbones/iresnet.py of
insightface. AdaFace: net.py of mk-minchul/AdaFace, whose units are counted through all stages.
"""

from __future__ import annotations

from collections.abc import Iterable

from plsc.errors import DataError
from plsc.models.resnet import UNITS
from plsc.models.se_resnet import SE_UNITS
from plsc.weights.net import Layer, Shapes, count

Units = tuple[int, ...]  # of each stage
STAGES = 4
SQUEEZE = "body.{}.res_layer.se_block"  # of a unit with squeeze-and-excitation


_UNIT = (("bn", "bn1"), ("conv", "conv1"), ("bn", "bn2"), ("prelu", "prelu"), ("conv", "conv2"), ("bn", "bn3"))
_SQUEEZE = (("reduce", "fc1"), ("expand", "fc2"))


def arcface_layers(units: Units) -> list[Layer]:
    """The layers by arcface_torch's names."""
    found = [Layer("conv", "stem.conv", "conv1"), Layer("bn", "stem.bn", "bn1"), Layer("prelu", "stem.prelu", "prelu")]
    for stage, unit in _places(units):
        ours, theirs = f"stage{stage}.unit{unit}", f"layer{stage}.{unit}"
        found += [Layer(kind, f"{ours}.{name}", f"{theirs}.{name}") for kind, name in _UNIT]
        if unit == 0:
            found += _projection(ours, f"{theirs}.downsample")
    head = [Layer("bn", "head.bn", "bn2"), Layer("fc", "head.fc", "fc"), Layer("bn", "head.feature_bn", "features")]
    return [*found, *head]


def adaface_layers(units: Units, squeezed: bool = False) -> list[Layer]:
    """The layers by AdaFace's names. squeezed: with squeeze-and-excitation."""
    found = [Layer("conv", "stem.conv", "input_layer.0"), Layer("bn", "stem.bn", "input_layer.1")]
    found.append(Layer("prelu", "stem.prelu", "input_layer.2"))
    head = [("bn", "head.bn", 0), ("fc", "head.fc", 3), ("plain_bn", "head.feature_bn", 4)]
    found += [Layer(kind, ours, f"output_layer.{place}") for kind, ours, place in head]  # there before the units
    for index, (stage, unit) in enumerate(_places(units)):
        ours, theirs = f"stage{stage}.unit{unit}", f"body.{index}"
        if unit == 0 and stage > 1:  # where the channels change
            found += _projection(ours, f"{theirs}.shortcut_layer")
        found += [Layer(kind, f"{ours}.{name}", f"{theirs}.res_layer.{i}") for i, (kind, name) in enumerate(_UNIT)]
        if squeezed:
            block = SQUEEZE.format(index)
            found += [Layer("conv", f"{ours}.se.{name}", f"{block}.{at}") for name, at in _SQUEEZE]
    return found


def _places(units: Units) -> Iterable[tuple[int, int]]:
    return ((stage, unit) for stage, count in enumerate(units, start=1) for unit in range(count))


def _projection(ours: str, theirs: str) -> list[Layer]:
    return [Layer("conv", f"{ours}.shortcut.conv", f"{theirs}.0"), Layer("bn", f"{ours}.shortcut.bn", f"{theirs}.1")]


def arcface_units(shapes: Shapes) -> Units:
    """How many units each stage has, by the names that are there."""
    return tuple(count(shapes, f"layer{stage}.{{}}.conv1.weight") for stage in range(1, STAGES + 1))


def adaface_units(shapes: Shapes) -> Units:
    """How many units each stage has: a stage ends where the channels change."""
    name = "body.{}.res_layer.1.weight"
    widths = [shapes[name.format(index)][:1] for index in range(count(shapes, name))]  # () of a damaged file
    return tuple(widths.count(width) for width in sorted(set(widths)))


def is_squeezed(shapes: Shapes) -> bool:
    """Whether the units of AdaFace's net have squeeze-and-excitation."""
    return f"{SQUEEZE.format(0)}.fc1.weight" in shapes


def model_of(units: Units, squeezed: bool = False) -> str:
    """The name of our model with so many units in each stage. Raises DataError where there is none."""
    models = SE_UNITS if squeezed else UNITS
    for name, known in models.items():
        if known == units:
            return name
    all_known = ", ".join(f"{name} {list(value)}" for name, value in models.items())
    raise DataError(f"its stages have {list(units)} units; PLSC has {all_known}")
