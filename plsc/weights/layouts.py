"""How other projects name the layers of the ResNets that PLSC has too.

arcface_torch (MagFace, PLSC 2.4 and others use its names): recognition/arcface_torch/backbones/iresnet.py of
insightface. AdaFace: net.py of mk-minchul/AdaFace, whose units are counted through all stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from plsc.errors import DataError
from plsc.models.resnet import UNITS

Units = tuple[int, ...]  # of each stage

# {kind: {our part: torch's}}; a plain_bn has no scale and no shift
PARTS = {
    "conv": {"weight": "weight"},
    "bn": {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_variance": "running_var"},
    "plain_bn": {"running_mean": "running_mean", "running_variance": "running_var"},
    "prelu": {"weight": "weight"},
    "fc": {"weight": "weight", "bias": "bias"},
}
STAGES = 4


@dataclass(frozen=True)
class Layer:
    """One layer: its kind (a key of PARTS), our name without "backbone.", and theirs."""

    kind: str
    ours: str
    theirs: str

    def tensors(self) -> Iterable[tuple[str, str]]:
        """(our variable, their tensor) of each part."""
        for ours, theirs in PARTS[self.kind].items():
            yield f"backbone.{self.ours}.{ours}", f"{self.theirs}.{theirs}"


_UNIT = (("bn", "bn1"), ("conv", "conv1"), ("bn", "bn2"), ("prelu", "prelu"), ("conv", "conv2"), ("bn", "bn3"))


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


def adaface_layers(units: Units) -> list[Layer]:
    """The layers by AdaFace's names."""
    found = [Layer("conv", "stem.conv", "input_layer.0"), Layer("bn", "stem.bn", "input_layer.1")]
    found.append(Layer("prelu", "stem.prelu", "input_layer.2"))
    for index, (stage, unit) in enumerate(_places(units)):
        ours, theirs = f"stage{stage}.unit{unit}", f"body.{index}"
        found += [Layer(kind, f"{ours}.{name}", f"{theirs}.res_layer.{i}") for i, (kind, name) in enumerate(_UNIT)]
        if unit == 0 and stage > 1:  # where the channels change
            found += _projection(ours, f"{theirs}.shortcut_layer")
    head = [("bn", "head.bn", 0), ("fc", "head.fc", 3), ("plain_bn", "head.feature_bn", 4)]
    return [*found, *(Layer(kind, ours, f"output_layer.{place}") for kind, ours, place in head)]


def _places(units: Units) -> Iterable[tuple[int, int]]:
    return ((stage, unit) for stage, count in enumerate(units, start=1) for unit in range(count))


def _projection(ours: str, theirs: str) -> list[Layer]:
    return [Layer("conv", f"{ours}.shortcut.conv", f"{theirs}.0"), Layer("bn", f"{ours}.shortcut.bn", f"{theirs}.1")]


def arcface_units(shapes: Mapping[str, tuple[int, ...]]) -> Units:
    """How many units each stage has, by the names that are there."""
    return tuple(_count(shapes, f"layer{stage}.{{}}.conv1.weight") for stage in range(1, STAGES + 1))


def adaface_units(shapes: Mapping[str, tuple[int, ...]]) -> Units:
    """How many units each stage has: a stage ends where the channels change."""
    name = "body.{}.res_layer.1.weight"
    widths = [shapes[name.format(index)][:1] for index in range(_count(shapes, name))]  # () of a damaged file
    return tuple(widths.count(width) for width in sorted(set(widths)))


def _count(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    count = 0
    while name.format(count) in shapes:
        count += 1
    return count


def model_of(units: Units) -> str:
    """The name of our model with so many units in each stage. Raises DataError where there is none."""
    for name, known in UNITS.items():
        if known == units:
            return name
    all_known = ", ".join(f"{name} {list(value)}" for name, value in UNITS.items())
    raise DataError(f"its stages have {list(units)} units; PLSC has {all_known}")
