"""A copy of a checkpoint with several centres of each class (sub-centre ArcFace) in which each class keeps one."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from plsc.checkpoint.manifest import Manifest
from plsc.checkpoint.read import ReshardSource
from plsc.checkpoint.reshard import require_other_run, rewrite
from plsc.checkpoint.tensors import TensorSpec
from plsc.errors import CheckpointError


def keep_one_centre(path: str, manifest: Manifest, run_dir: str, chosen: np.ndarray) -> str:
    """Write the checkpoint directory `path` under `run_dir`; returns the new directory. Of class i only the centre
    `chosen[i]` (int [num_classes]) is kept.

    The optimizer's states of a centre stay with it, and pending rows stay pending: a run goes on with them as with one
    that always had one centre. Memory: the replicated tensors and one block of rows. Raises CheckpointError, see
    require_centres_to_merge.
    """
    require_centres_to_merge(path, manifest, run_dir)
    sources = [_OneCentre(path, manifest, first, last, chosen) for first, last in manifest.class_ranges]
    config = copy.deepcopy(manifest.config)
    if isinstance(config.get("classifier"), dict):
        config["classifier"]["sub_centres"] = 1
    return rewrite(path, manifest, run_dir, sources, {"sub_centres": 1, "config": config}, "--output")


def require_centres_to_merge(path: str, manifest: Manifest, run_dir: str) -> None:
    """Raise CheckpointError where a checkpoint has one centre already, or `run_dir` holds it or one of its step."""
    if manifest.sub_centres == 1:
        raise CheckpointError(f"{path}: has one centre of each class; there is nothing to merge")
    require_other_run(path, manifest, run_dir)


class _OneCentre:
    """The classes [first, last) (a ShardSource)."""

    def __init__(self, path: str, manifest: Manifest, first: int, last: int, chosen: np.ndarray):
        self._stored, self._manifest = ReshardSource(path, manifest, first, last), manifest
        self._chosen = chosen[first:last]

    def tensors(self) -> list[TensorSpec]:
        """As ShardSource has it."""
        size = self._manifest.embedding_size
        return [TensorSpec(spec.name, spec.dtype, (spec.shape[0], size)) if _has_centres(spec) else spec
                for spec in self._stored.tensors()]  # fmt: skip

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """As ShardSource has it."""
        with_centres = {spec.name for spec in self._stored.tensors() if _has_centres(spec)}
        for name, first, rows in self._stored.blocks():
            if name in with_centres:
                by_centre = rows.reshape(len(rows), self._manifest.sub_centres, -1)
                rows = by_centre[np.arange(len(rows)), self._chosen[first : first + len(rows)]]
            yield name, first, rows


def _has_centres(spec: TensorSpec) -> bool:
    """Whether a class tensor has numbers of each centre: the weight and states of the optimizer; not class numbers."""
    return spec.dtype == "F32" and len(spec.shape) == 2
