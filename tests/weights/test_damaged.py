"""Files of weights with random damage: a CheckpointError on one line or a model, nothing else, and no time lost."""

from __future__ import annotations

import random
import time

import pytest

from plsc.errors import CheckpointError
from plsc.weights.foreign import InputOptions, open_model
from tests.weights import onnx_kit
from tests.weights import torch_kit as kit


def write(path, kind: str) -> bytes:
    """A model of width 1, in which names and sizes are most of the file."""
    if kind == "onnx":
        return onnx_kit.save(path, kit.random_net(kit.arcface_shapes(18, 1, 1, 1))).read_bytes()
    if kind == "adaface":
        net = kit.random_net(kit.adaface_shapes(18, 1, 1, 1))
        return kit.save(path, {"state_dict": {f"model.{name}": array for name, array in net.items()}}).read_bytes()
    return kit.save(path, kit.random_net(kit.arcface_shapes(18, 1, 1, 1))).read_bytes()


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, lost, added or copied to another place."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place, other, size = draw.randrange(len(data)), draw.randrange(len(data)), draw.randrange(1, 20)
        way = draw.randrange(4)
        if way == 0:
            data[place] = draw.randrange(256)
        elif way == 1:
            del data[place : place + size]
        elif way == 2:
            data[place:place] = draw.randbytes(size)
        else:
            data[place : place + size] = data[other : other + size]
    return bytes(data)


@pytest.mark.parametrize("kind", ["arcface_torch", "adaface", "onnx"])
def test_damage_is_an_error_of_one_line(tmp_path, kind):
    content, draw = write(tmp_path / "good", kind), random.Random(5)
    refused, began = 0, time.monotonic()
    for _ in range(250):
        (tmp_path / "bad").write_bytes(damaged(content, draw))
        try:
            open_model(str(tmp_path / "bad"), "onnx" if kind == "onnx" else None, InputOptions())
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 150 and time.monotonic() - began < 60  # names and some numbers may be any
