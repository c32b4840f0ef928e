"""Maps the variables of PLSC 0.2's ResNet and 2.2's FresResNet to ours.

Those versions used Paddle's names: conv2d_7.w_0 is the eighth convolution. Their layers are created in the same order
as ours (stem, units of bn1 conv1 bn2 prelu conv2 bn3 shortcut, head), so the n-th of a kind is our n-th. Only the order
counts, not the number, because the numbering continued where a process built several programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from plsc.errors import CheckpointError

# {our parameter: the suffix of Paddle's name}
PARTS = {
    "conv2d": {"weight": "w_0"},
    "batch_norm": {"weight": "w_0", "bias": "b_0", "running_mean": "w_1", "running_variance": "w_2"},
    "prelu": {"weight": "w_0"},
    "fc": {"weight": "w_0", "bias": "b_0"},
}
UNITS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_OLD = re.compile(r"(conv2d|batch_norm|prelu|fc)_(\d+)\.(w_0|w_1|w_2|b_0)")


def layers(depth: int) -> list[tuple[str, str]]:
    """[(kind, our name)] of ResNet<depth> in the order of creation."""
    found = [("conv2d", "stem.conv"), ("batch_norm", "stem.bn"), ("prelu", "stem.prelu")]
    for stage, units in enumerate(UNITS[depth], start=1):
        for unit in range(units):
            name = f"stage{stage}.unit{unit}"
            found += [("batch_norm", f"{name}.bn1"), ("conv2d", f"{name}.conv1"), ("batch_norm", f"{name}.bn2")]
            found += [("prelu", f"{name}.prelu"), ("conv2d", f"{name}.conv2"), ("batch_norm", f"{name}.bn3")]
            if unit == 0:  # the first unit of a stage downsamples, so its shortcut needs a convolution
                found += [("conv2d", f"{name}.shortcut.conv"), ("batch_norm", f"{name}.shortcut.bn")]
    return found + [("batch_norm", "head.bn"), ("fc", "head.fc"), ("batch_norm", "head.feature_bn")]


def our_names(old: Iterable[str]) -> tuple[int, dict[str, str]]:
    """(depth, {our variable: old variable}) of a backbone. Raises CheckpointError for an unknown model."""
    old = set(old)
    numbers: dict[str, list[int]] = {kind: [] for kind in PARTS}
    for name in old:
        match = _OLD.fullmatch(name)
        if match is None:
            raise CheckpointError(f"{name}: is not a variable of PLSC's ResNet; other models are not imported")
        numbers[match[1]] = sorted({*numbers[match[1]], int(match[2])})
    counts = {kind: len(found) for kind, found in numbers.items()}
    for depth in UNITS:
        made = layers(depth)
        if all(counts[kind] == sum(kind == other for other, _ in made) for kind in counts):
            pairs = _pairs(made, numbers)
            missing = sorted(set(pairs.values()) ^ old)
            if missing:
                raise CheckpointError(f"{missing[0]}: missing, or one too many, for ResNet{depth}")
            return depth, pairs
    raise CheckpointError(f"no ResNet of {', '.join(map(str, UNITS))} layers has {counts}; layers are missing")


def _pairs(made: list[tuple[str, str]], numbers: dict[str, list[int]]) -> dict[str, str]:
    places = {kind: iter(found) for kind, found in numbers.items()}
    pairs = {}
    for kind, name in made:
        number = next(places[kind])
        for part, ending in PARTS[kind].items():
            pairs[f"backbone.{name}.{part}"] = f"{kind}_{number}.{ending}"
    return pairs
