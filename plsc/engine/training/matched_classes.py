"""Class centres of a checkpoint for the classes of a run: which class is which, and the rows of this rank."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.data import difference
from plsc.data.label_map import Classes, match_classes, read_label_map
from plsc.engine.program.session import Session
from plsc.engine.run.start import Run
from plsc.errors import CheckpointError, DataError


def class_map(run: Run, path: str, manifest: Manifest, data, key: str) -> tuple[np.ndarray, np.ndarray, str]:
    """(old labels [n] in rising order, their new ones [n], how they were matched). ``key``: what asks for it, as
    "key='value'". Raises DataError."""
    config, number = run.config, run.config.classifier.num_classes
    if config.label_map:
        return *read_label_map(config.label_map, manifest.num_classes, number), "by label_map"
    stored = Classes(manifest.num_classes, checkpoint.read_class_names(path, manifest), path)
    old, new, how = match_classes(stored, Classes(number, run.class_names, "the training data"), key)
    if (stored.names and run.class_names) or not manifest.data:
        return old, new, how
    changed = difference(manifest.data, run.data.get("training", {}), getattr(data, "record", None))
    if changed is not None and changed.relabelled and not config.accept_new_labels:
        raise DataError(
            f"{key}: {path} was trained with other labels, and there are no names of classes to match "
            f"by: {changed.text}; set label_map to a file of old_label<TAB>new_label, or accept_new_labels: true where "
            "each label still means the same class"
        )
    return old, new, how


def require_same_map(run: Run, old: np.ndarray, new: np.ndarray) -> None:
    """Raise DataError on every rank where the ranks read different maps."""
    sums = run.group.all_gather(zlib.crc32(new, zlib.crc32(old)))
    others = [str(rank) for rank, found in enumerate(sums) if found != sums[0]]
    if others:
        raise DataError(
            f"label_map={run.config.label_map!r}: rank(s) {', '.join(others)} map the classes otherwise than rank 0; "
            "give every rank the same map, data and checkpoint"
        )


def load_classes(session: Session, path: str, manifest: Manifest, old: np.ndarray, new: np.ndarray) -> None:
    """Set the centres ``new`` [n] of this rank to those of the labels ``old`` [n] of the checkpoint, in rising order.

    Raises CheckpointError.
    """
    specs = {spec.name: spec for spec in manifest.shard_tensors}
    row_size = session.program.spec.row_size
    if "weight" not in specs or specs["weight"].shape[1:] != (row_size,):
        found = list(specs["weight"].shape[1:]) if "weight" in specs else "none"
        raise CheckpointError(
            f"the classes have {row_size} numbers each (with its bias, for softmax), those of the checkpoint {found}"
        )
    shard = session.program.shard
    mine = (new >= shard.first) & (new < shard.first + shard.num_local)
    for index, rows in _select_rows(path, manifest, old[mine], new[mine] - shard.first):
        session.set_rows("weight", index, rows)


def _select_rows(
    path: str, manifest: Manifest, old: np.ndarray, local: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(local rows, their values) for old classes in rising order, a block of the stored classes at a time."""
    if not len(old):
        return
    start = int(old[0])
    for _, row, block in checkpoint.read_rows(
        path, manifest, start, int(old[-1]) + 1, checkpoint.ReadOptions(["weight"])
    ):
        low, high = np.searchsorted(old, [start + row, start + row + len(block)])
        if high > low:
            yield local[low:high], block[old[low:high] - start - row]
