"""A file of weights of another project: the kind of model, its arrays by that project's names, its class centres."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plsc.errors import CheckpointError, DataError
from plsc.files import safe_open
from plsc.files.torch_file import OLD_MAGIC, Tensor, TorchFile
from plsc.weights import pdparams
from plsc.weights.kinds import ADAFACE, ARCFACE, KINDS, MAGFACE, PLSC24, Kind, families
from plsc.weights.momentum import backbone_momentum
from plsc.weights.pdparams import Array

HOMES = ("state_dict_backbone", "state_dict")  # where a checkpoint with more in it has the weights
MAGFACE_PREFIXES = ("features.module.", "module.features.", "features.")
ADAFACE_HEAD = "head.kernel"  # the class centres, [E, C]
COUNTER = ".num_batches_tracked"  # torch's count of training steps, which nothing reads
MAX_NAMED = 5
MAX_SHARED = 4  # the size of all tensors, in sizes of the file


@dataclass(frozen=True)
class Source:
    """A model as its project stores it. arrays: {name without its prefix: array}. unused: names of other tensors.
    momentum: of those parameters that have one, by the names of arrays; None without any."""

    path: str
    kind: Kind
    arrays: dict[str, np.ndarray]
    unused: list[str] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    centres: np.ndarray | None = None  # [C, E], if the file has all of them
    momentum: dict[str, np.ndarray] | None = None

    def with_kind(self, kind: Kind) -> Source:
        """A copy with another kind."""
        return dataclasses.replace(self, kind=kind)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        return {name: array.shape for name, array in self.arrays.items()}


def read_source(path: str, kind: Kind | None = None) -> Source:
    """Read a file of weights. kind: None to detect it. Raises CheckpointError that names the file."""
    try:
        with safe_open.open_bytes(path, safe_open.TENSORS) as opened:
            head = opened.read(len(OLD_MAGIC))
        if head[:1] == pdparams.MAGIC and head != OLD_MAGIC:
            return _read_pdparams(path, kind)
        with TorchFile(path) as file:
            return _read_torch(path, file.value, kind, os.path.getsize(path))
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None


def _read_torch(path: str, value: Any, kind: Kind | None, file_bytes: int) -> Source:
    tensors = _tensors(value)
    kind, prefix = _kind_of(tensors, kind)
    own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    known = _wanted(kind, own)
    size = sum(own[name].num_bytes for name in known if name in own)
    if size > MAX_SHARED * file_bytes:  # tensors that share a storage have memory of their own here
        raise DataError(f"refused: its tensors share storages, and have {size:,} bytes in a file of {file_bytes:,}")
    arrays = {name: _read_float32(name, own[name]) for name in known if name in own}
    used = {prefix + name for name in known}
    centres = None
    if kind is ADAFACE and ADAFACE_HEAD in tensors:
        centres = _read_float32(ADAFACE_HEAD, tensors[ADAFACE_HEAD]).T
        used.add(ADAFACE_HEAD)
    unused = [name for name in tensors if name not in used and not name.endswith(COUNTER)]
    momentum = _momentum(value, tensors, prefix, arrays)
    epoch, step = _count(value.get("epoch")), _count(value.get("global_step"))
    return Source(path, kind, arrays, unused, epoch, step, centres, momentum)


def _momentum(
    value: Any, tensors: Mapping[str, Tensor], prefix: str, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """That of the tensors of ``arrays``. Raises DataError for one that is not as its parameter."""
    stored = backbone_momentum(value, tensors)
    if stored is None:
        return None
    found = {}
    for name, tensor in stored.items():
        own = name[len(prefix) :]
        if own in arrays:
            found[own] = _read_float32(f"{name} (its momentum)", tensor)
            if found[own].shape != arrays[own].shape:
                raise DataError(
                    f"the momentum of tensor {ascii(name)[:80]} is {list(found[own].shape)}, must be "
                    f"{list(arrays[own].shape)}"
                )
    return found


def _read_pdparams(path: str, kind: Kind | None) -> Source:
    if kind not in (None, PLSC24):
        raise DataError("is a pickle as PLSC 2.4 writes it, no file of torch.save; use --from plsc2.4")
    tensors = pdparams.read_pdparams(path)
    _kind_of(tensors, PLSC24)
    known = _wanted(PLSC24, tensors)
    arrays = {name: _read_float32(name, tensors[name]) for name in known if name in tensors}
    centres = _read_float32(pdparams.HEAD, tensors[pdparams.HEAD]) if pdparams.HEAD in tensors else None
    unused = [name for name in tensors if name not in known and name != pdparams.HEAD]
    return Source(path, PLSC24, arrays, unused, centres=centres)


def _tensors(value: Any) -> dict[str, Tensor]:
    """The tensors of the state_dict by name."""
    if not isinstance(value, dict):
        raise DataError(f"holds {type(value).__name__}, must hold the tensors of a model by name (its state_dict)")
    home = next((value[name] for name in HOMES if isinstance(value.get(name), dict)), value)
    return {name: tensor for name, tensor in home.items() if isinstance(name, str) and isinstance(tensor, Tensor)}


def _kind_of(tensors: Mapping[str, Any], kind: Kind | None) -> tuple[Kind, str]:
    """(the kind, the prefix of its names). Raises DataError for no model, or several in one file."""
    for one in families(kind):
        marker = one.net.marker
        prefixes = [name[: -len(marker)] for name in tensors if name.endswith(marker)]
        prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
        if len(prefixes) > 1:
            raise DataError(f"holds {len(prefixes)} models, {', '.join(map(ascii, prefixes))[:200]}; keep one of them")
        if prefixes:
            magface = kind is None and one is ARCFACE and prefixes[0] in MAGFACE_PREFIXES
            return (MAGFACE if magface else one), prefixes[0]
    found = ", ".join(ascii(name)[1:-1][:60] for name in list(tensors)[:MAX_NAMED]) or "no tensors"
    kinds = kind.name if kind else ", ".join(KINDS)
    raise DataError(f"holds no model of these kinds: {kinds}; it has {len(tensors)} tensors, beginning with {found}")


def _wanted(kind: Kind, own: Mapping[str, Any]) -> set[str]:
    layers = kind.net.layers({name: tensor.shape for name, tensor in own.items()})
    return {theirs for layer in layers for _, theirs in layer.tensors()}


def _read_float32(name: str, tensor: Tensor | Array) -> np.ndarray:
    array = tensor.read()
    if not tensor.is_float:
        raise DataError(f"tensor {ascii(name)[:80]} holds {tensor.dtype}, must hold floats")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"tensor {ascii(name)[:80]} holds numbers that are not finite")
    return array


def _count(value: Any) -> int:
    """A number that a file may have or not; 0 for what can be none."""
    return value if type(value) is int and 0 <= value <= 10**15 else 0
