"""Imports checkpoints of PLSC 0.2 and 2.2 (static graph): a pickled array per variable and meta.json, read safely.

Files: <name>.pdparam for weights and batch statistics, <name>.pdopt for momentum (<name>_velocity_0). The classifier
is dist@<name>@rank@00000.w (with _0 after it in 0.2), [embedding, classes of the rank]; here [classes, embedding].
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.checkpoint.lock import exclusive_run_dir
from plsc.checkpoint.manifest import RANGES
from plsc.checkpoint.old_names import our_names
from plsc.checkpoint.tensors import TensorSpec
from plsc.checkpoint.write import save_shards
from plsc.errors import CheckpointError, DataError
from plsc.files import plain_json, safe_open
from plsc.files.safe_pickle import as_array, load_plain
from plsc.parallel.shards import class_range

_SHARD = re.compile(r"dist@[^@]+@rank@(\d{5})\.w(?:_0)?(_velocity_0)?")
VELOCITY = "_velocity_0"
EPSILON_STEP = 1e-5  # 2.2 adds 1e-5 to variances, our models 2e-5: the stored variance is reduced by the difference


@dataclass(frozen=True)
class OldCheckpoint:
    """What is in an old directory: `files` by variable name, `shards` [(weight file, velocity file or None)]."""

    path: str
    num_classes: int
    embedding_size: int
    epoch: int
    step: int
    files: dict[str, str]
    shards: list[tuple[str, str | None]]

    @classmethod
    def open(cls, path: str) -> OldCheckpoint:
        """Raises CheckpointError, naming the file, for what is missing or contradicts meta.json."""
        meta = _meta(path)
        ranks = _number(path, meta, 99_999, "pretrain_world_size", "pretrain_nranks")
        files, shards = {}, {}
        for name in _names(path):
            stem, ending = os.path.splitext(name)
            if ending in (".pdparam", ".pdopt") and "@GRAD" not in stem:
                match = _SHARD.fullmatch(stem)
                if match:
                    shards[int(match[1]), bool(match[2])] = name
                else:
                    files[stem] = name
        if {rank for rank, moved in shards if not moved} != set(range(ranks)):
            raise CheckpointError(
                f"{path}: meta.json says {ranks} ranks, so dist@...@rank@00000.w to {ranks - 1:05d} must be there, "
                f"found {sorted(rank for rank, moved in shards if not moved)}"
            )
        has_velocity = all((rank, True) in shards for rank in range(ranks))
        pairs = [(shards[rank, False], shards[rank, True] if has_velocity else None) for rank in range(ranks)]
        state = meta.get("lr_state")
        step = state.get("last_epoch", 0) if isinstance(state, dict) else 0
        return cls(
            path, _number(path, meta, RANGES["num_classes"][1], "num_classes"),
            _number(path, meta, RANGES["embedding_size"][1], "embedding_size", "emb_dim"),
            _count(meta.get("epoch"), "epoch"), _count(step, "step"), files, pairs,
        )  # fmt: skip

    def read(self, file: str) -> np.ndarray:
        """The array of one file. Raises CheckpointError for one that holds, or tries, anything else."""
        path = os.path.join(self.path, file)
        try:
            with safe_open.open_bytes(path, safe_open.TENSORS) as handle:
                array = as_array(load_plain(handle, weights=True))
        except DataError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:  # damaged pickles raise anything
            raise CheckpointError(f"{path}: damaged, or not a pickled array: {type(error).__name__}") from None
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise CheckpointError(f"{path}: holds {type(array).__name__}, must hold one array of floats")
        return np.asarray(array, np.float32)


class _OldShard:
    """The classes of one old rank (a ShardSource): each file is read when it is written, one at a time."""

    def __init__(self, old: OldCheckpoint, rank: int):
        self._old, self._files = old, old.shards[rank]
        first, last = class_range(old.num_classes, rank, len(old.shards))
        self._shape = (last - first, old.embedding_size)

    def tensors(self) -> list[TensorSpec]:
        return [TensorSpec(name, "F32", self._shape) for name in ("weight", "velocity")]

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        for name, file in zip(("weight", "velocity"), self._files):
            if file is None:
                yield name, 0, np.zeros(self._shape, np.float32)
                continue
            array = self._old.read(file)
            if array.shape != self._shape[::-1]:
                raise CheckpointError(
                    f"{os.path.join(self._old.path, file)}: is {list(array.shape)}, meta.json implies "
                    f"{list(self._shape[::-1])}"
                )
            yield name, 0, np.ascontiguousarray(array.T)


def import_old(path: str, run_dir: str, epsilon: float, samples: int = 0) -> tuple[str, list[str]]:
    """Convert an old checkpoint to one under `run_dir`; returns its directory and notes on missing data.

    epsilon: that of the old batch norms: 1e-5 (2.2) or 2e-5 (0.2). samples: used so far, for the position in
    the data. Raises CheckpointError.
    """
    old = OldCheckpoint.open(path)
    depth, replicated, notes = _backbone(old, epsilon)
    replicated["classifier.step"] = np.array([old.step], np.int64)
    if old.shards[0][1] is None:
        notes.append("no momentum of the classes: it begins at zero")
    if not samples:
        notes.append("the position in the data is not in an old checkpoint: the first epoch begins anew (--samples)")
    notes.append("seed, loss scale and the state of the learning rate are not taken over: set the configuration")
    meta = {
        "paddle_version": "unknown", "num_classes": old.num_classes, "embedding_size": old.embedding_size,
        "epoch": old.epoch, "position": {"samples": samples}, "config": {}, "random_states": {}, "lr_state": {},
        "extra": {"imported": {"model": f"ResNet{depth}"}},
    }  # fmt: skip
    shards = [_OldShard(old, rank) for rank in range(len(old.shards))]
    with exclusive_run_dir(run_dir, "--to"):
        return save_shards(run_dir, old.step, replicated, shards, meta), notes


def _backbone(old: OldCheckpoint, epsilon: float) -> tuple[int, dict[str, np.ndarray], list[str]]:
    weights = [name for name, file in old.files.items() if file.endswith(".pdparam")]
    states = {name: file for name, file in old.files.items() if file.endswith(".pdopt") and VELOCITY not in name}
    depth, pairs = our_names([*weights, *(name for name in states if re.search(r"\.w_[12]$", name))])
    arrays: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for ours, theirs in pairs.items():
        array = old.read(old.files[theirs])
        arrays[ours] = array
        velocity = old.files.get(theirs + VELOCITY)
        if "running" not in ours:
            arrays[f"velocity.{ours}"] = np.zeros_like(array) if velocity is None else old.read(velocity)
            if velocity is None and not notes:
                notes.append("no momentum of some weights: it begins at zero")
    _expand_prelu(arrays, notes)
    for name in arrays:
        if name.endswith("running_variance"):
            arrays[name] = np.maximum(arrays[name] + np.float32(epsilon - 2 * EPSILON_STEP), 0)
    return depth, arrays, notes


def _expand_prelu(arrays: dict[str, np.ndarray], notes: list[str]) -> None:
    """PReLU: one slope for all channels (0.2) becomes one each; [1, C, 1, 1] or [1, 1, 1, C] (2.2) becomes [C]."""
    for name in [name for name in arrays if name.endswith("prelu.weight") and not name.startswith("velocity.")]:
        channels = arrays[name.replace("prelu.weight", "bn.weight" if "stem" in name else "bn2.weight")].shape
        shared = arrays[name].size == 1 and channels != (1,)
        arrays[name] = np.broadcast_to(arrays[name].reshape(-1), channels).copy()
        moved = arrays["velocity." + name].reshape(-1)
        arrays["velocity." + name] = np.zeros(channels, np.float32) if shared else moved
        note = "one PReLU slope for all channels became one each; its momentum begins at zero"
        if shared and note not in notes:
            notes.append(note)


def _meta(path: str) -> dict[str, Any]:
    file = os.path.join(path, "meta.json")
    try:
        meta = plain_json.loads(safe_open.read_bytes(file, safe_open.SETTINGS))
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}; give one epoch's directory of PLSC 0.2 or 2.2") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: damaged, {error}") from None
    if not isinstance(meta, dict):
        raise CheckpointError(f"{file}: not an object")
    return meta


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; give one epoch's directory of PLSC 0.2 or 2.2") from None


def _number(path: str, meta: dict[str, Any], most: int, *names: str) -> int:
    for name in names:
        if type(meta.get(name)) is int and 1 <= meta[name] <= most:
            return meta[name]
    raise CheckpointError(f"{os.path.join(path, 'meta.json')}: {names[0]} must be a whole number in [1, {most}]")


def _count(value: Any, name: str) -> int:
    """A number that an old checkpoint may have or not; 0 for what can be none."""
    return value if type(value) is int and 0 <= value <= RANGES[name][1] else 0


__all__ = ["OldCheckpoint", "import_old"]
