"""Files as torch.save writes them, by Python's own pickle and zipfile; nets of random numbers in published layouts.

Written with nothing of plsc, for tests without torch; in tests/torch it writes such files itself. Read once by torch
2.13 (load, and load_state_dict into nets of these layouts), whose embeddings of `pictures` are in test_formula.py.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3)}
KINDS = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<f8": "DoubleStorage", "<i8": "LongStorage", "<i4": "IntStorage",
         "|b1": "BoolStorage"}  # fmt: skip


class Global:
    """A name that a pickle refers to and that is nowhere here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __call__(self, *_: Any) -> None:
        raise AssertionError


class Storage:
    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


class View:
    """A tensor over a storage: by default the whole of it."""

    def __init__(self, storage: Storage, shape=None, strides=None, offset: int = 0):
        self.storage, self.offset = storage, offset
        self.shape = storage.array.shape if shape is None else shape
        self.strides = [s // storage.array.itemsize for s in storage.array.strides] if strides is None else strides


class Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2, arrays and Views as tensors whose numbers lie outside."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages: dict[str, np.ndarray] = {}

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj.array
        kind = Global("torch", KINDS[obj.array.dtype.str])
        return "storage", kind, obj.key, "cpu", obj.array.size

    def reducer_override(self, obj):
        if isinstance(obj, np.ndarray):
            obj = View(Storage(str(len(self.storages)), np.ascontiguousarray(obj).reshape(obj.shape)))
        if not isinstance(obj, View):
            return NotImplemented
        rest = obj.offset, tuple(obj.shape), tuple(obj.strides), False, OrderedDict()
        return Global("torch._utils", "_rebuild_tensor_v2"), (obj.storage, *rest)


def save(path: Path, value: Any, folder: str = "archive") -> Path:
    """As torch.save(value, path)."""
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(value)
    return save_parts(path, file.getvalue(), {key: array.tobytes() for key, array in pickler.storages.items()}, folder)


def save_parts(path: Path, pickled: bytes, storages: dict[str, bytes], folder: str = "archive") -> Path:
    """A zip of a pickle and storages."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{folder}/data.pkl", pickled)
        archive.writestr(f"{folder}/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"{folder}/data/{key}", data)
        archive.writestr(f"{folder}/version", b"3\n")
    return path


def arcface_shapes(depth: int, width: int, embedding: int, side: int) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of arcface_torch's iresnet in the order of its state_dict; counters are ()."""
    found = {"conv1.weight": (width, 3, 3, 3), **_bn("bn1", width), "prelu.weight": (width,)}
    before = width
    for stage, units in enumerate(UNITS[depth], start=1):
        out = width * 2 ** (stage - 1)
        for unit in range(units):
            at = f"layer{stage}.{unit}"
            found.update(
                {**_bn(f"{at}.bn1", before), f"{at}.conv1.weight": (out, before, 3, 3), **_bn(f"{at}.bn2", out)}
            )
            found.update(
                {f"{at}.prelu.weight": (out,), f"{at}.conv2.weight": (out, out, 3, 3), **_bn(f"{at}.bn3", out)}
            )
            if unit == 0:
                found.update({f"{at}.downsample.0.weight": (out, before, 1, 1), **_bn(f"{at}.downsample.1", out)})
            before = out
    found.update({**_bn("bn2", before), "fc.weight": (embedding, before * side * side), "fc.bias": (embedding,)})
    return {**found, **_bn("features", embedding)}


def adaface_shapes(
    depth: int, width: int, embedding: int, side: int, squeezed: bool = False
) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of AdaFace's IR nets; squeezed: of IR-SE."""
    found = {"input_layer.0.weight": (width, 3, 3, 3), **_bn("input_layer.1", width), "input_layer.2.weight": (width,)}
    before, index = width, 0
    for stage, units in enumerate(UNITS[depth]):
        out = width * 2**stage
        for _ in range(units):
            if before != out:
                at = f"body.{index}.shortcut_layer"
                found.update({f"{at}.0.weight": (out, before, 1, 1), **_bn(f"{at}.1", out)})
            at = f"body.{index}.res_layer"
            found.update({**_bn(f"{at}.0", before), f"{at}.1.weight": (out, before, 3, 3), **_bn(f"{at}.2", out)})
            found.update({f"{at}.3.weight": (out,), f"{at}.4.weight": (out, out, 3, 3), **_bn(f"{at}.5", out)})
            if squeezed:
                hidden = out // 16
                found.update({f"{at}.se_block.fc1.weight": (hidden, out, 1, 1)})
                found.update({f"{at}.se_block.fc2.weight": (out, hidden, 1, 1)})
            before, index = out, index + 1
    found.update({**_bn("output_layer.0", before), "output_layer.3.weight": (embedding, before * side * side)})
    last = {name: shape for name, shape in _bn("output_layer.4", embedding).items() if "running" in name or not shape}
    return {**found, "output_layer.3.bias": (embedding,), **last}


def mobile_shapes(width: int, embedding: int, large: bool = False, side: int = 7) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of arcface_torch's mbf and mbf_large, which have a width of 64."""
    scale, blocks = (4, (2, 8, 12, 4)) if large else (2, (1, 4, 6, 2))

    def block(name, out, inputs, kernel, prelu=True):
        found = {f"{name}.layers.0.weight": (out, inputs, kernel, kernel), **_bn(f"{name}.layers.1", out)}
        return {**found, **({f"{name}.layers.2.weight": (out,)} if prelu else {})}

    def bottleneck(name, inputs, hidden, out):
        found = block(f"{name}.layers.0", hidden, inputs, 1)
        found.update(block(f"{name}.layers.1", hidden, 1, 3))
        return {**found, **block(f"{name}.layers.2", out, hidden, 1, prelu=False)}

    found = block("layers.0", scale * width, 3, 3)
    if not large:
        found.update(block("layers.1", scale * width, scale, 3))
    wide, hidden = scale * width, 2 * width
    rows = [(1, wide, hidden, wide, blocks[0])] if large else []
    rows += [(2, wide, hidden, wide, 0), (3, wide, hidden, wide, blocks[1]), (4, wide, 2 * hidden, 2 * wide, 0)]
    rows += [(5, 2 * wide, 2 * hidden, 2 * wide, blocks[2]), (6, 2 * wide, 4 * hidden, 2 * wide, 0)]
    rows += [(7, 2 * wide, 2 * hidden, 2 * wide, blocks[3])]
    for place, *sizes, repeats in rows:
        names = [f"layers.{place}.layers.{unit}" for unit in range(repeats)] or [f"layers.{place}"]
        for name in names:
            found.update(bottleneck(name, *sizes))
    found.update(block("conv_sep", 8 * width, 2 * wide, 1))
    found.update(block("features.layers.0", 8 * width, 1, side, prelu=False))
    found["features.layers.2.weight"] = (embedding, 8 * width)
    return {**found, **_bn("features.layers.3", embedding)}


def vit_shapes(width: int, depth: int, embedding: int, patch: int = 9, side: int = 12) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of arcface_torch's ViT; side: patches."""
    found: dict[str, tuple[int, ...]] = {"pos_embed": (1, side * side, width), "mask_token": (1, 1, width)}
    found.update({"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)})
    for index in range(depth):
        at = f"blocks.{index}"
        for name, shape in (("norm1", (width,)), ("norm2", (width,)), ("attn.proj", (width, width)),
                            ("mlp.fc1", (4 * width, width)), ("mlp.fc2", (width, 4 * width))):  # fmt: skip
            found.update({f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]})
        found[f"{at}.attn.qkv.weight"] = (3 * width, width)
    found.update({"norm.weight": (width,), "norm.bias": (width,), "feature.0.weight": (width, side * side * width)})
    found.update({**_bn("feature.1", width), "feature.2.weight": (embedding, width), **_bn("feature.3", embedding)})
    return found


def _bn(name: str, size: int) -> dict[str, tuple[int, ...]]:
    parts = dict.fromkeys((f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var"), (size,))
    return {**parts, f"{name}.num_batches_tracked": ()}


def random_net(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> OrderedDict:
    """Numbers for these tensors; variances from 2e-5 on, so that an epsilon of 1e-5 is seen."""
    arrays = OrderedDict()
    for index, (name, shape) in enumerate(shapes.items()):
        draw = np.random.Generator(np.random.Philox(key=[seed, index]))
        if not shape:
            arrays[name] = np.array(3, np.int64)
        elif len(shape) > 1:
            arrays[name] = draw.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype("<f4")
        elif name.endswith("running_var"):
            arrays[name] = np.concatenate([[2e-5], draw.uniform(0.5, 1.5, shape[0] - 1)]).astype("<f4")
        else:
            low, high = (0.5, 1.5) if name.endswith("weight") else (-0.3, 0.3)
            arrays[name] = draw.uniform(low, high, shape).astype("<f4")
            if name.endswith("weight"):
                arrays[name][0] = 0.005  # of the small variance
    return arrays


def gentle_net(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> OrderedDict:
    """Numbers with which rounding stays far below the tolerance of an import, as in a trained net."""
    arrays = random_net(shapes, seed)
    for array in arrays.values():
        if array.ndim > 1:
            array *= np.float32(0.5)
        elif array.ndim == 1:
            array[0] = 1.0  # in place of the small variance and its weight
    return arrays


def pictures(side: int = 112) -> np.ndarray:
    """uint8 RGB [2, side, side, 3]."""
    return np.random.Generator(np.random.Philox(key=[7, 7])).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
