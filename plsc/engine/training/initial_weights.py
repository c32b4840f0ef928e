"""Initial weights from a checkpoint: the backbone alone, or class centres as well."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.checkpoint.collective import on_all_ranks
from plsc.data.label_map import read_label_map
from plsc.engine.program.same_function import require_same_function
from plsc.engine.program.session import Session
from plsc.engine.run.start import Run
from plsc.errors import CheckpointError, DataError


def load_initial_weights(run: Run, session: Session) -> None:
    """Load the weights that ``init_from`` names into a newly initialised session; every rank calls it.

    Momentum, step and all other state start from zero. Raises CheckpointError on every rank, before training.
    """
    config, spec = run.config, session.program.spec
    if config.init_from == "none":
        return
    expected = checkpoint.Expected(embedding_size=spec.embedding_size)
    path, manifest = checkpoint.open_checkpoint(config.init_checkpoint, run.group, expected)
    what = f"cannot start from {path}"
    require_same_function(run, path, manifest)
    on_all_ranks(run.group, what, lambda: _load_backbone(session, path, manifest))
    kept = ""
    if config.init_from == "classes":
        old, new = run.group.agree(lambda: read_label_map(config.label_map, manifest.num_classes, spec.num_classes))
        _require_same_map(run, old, new)
        on_all_ranks(run.group, what, lambda: _load_classes(session, path, manifest, old, new))
        kept = f" and {len(new):,} of {spec.num_classes:,} classes"
    run.log.info(f"start with the backbone{kept} of {path}, step {manifest.step:,}")


def _require_same_map(run: Run, old: np.ndarray, new: np.ndarray) -> None:
    """Raise DataError on every rank where the ranks read different maps."""
    sums = run.group.all_gather(zlib.crc32(new, zlib.crc32(old)))
    others = [str(rank) for rank, found in enumerate(sums) if found != sums[0]]
    if others:
        raise DataError(
            f"label_map={run.config.label_map!r}: rank(s) {', '.join(others)} read another map than rank 0; give every "
            "rank the same"
        )


def _load_backbone(session: Session, path: str, manifest: Manifest) -> None:
    stored = {spec.name: spec for spec in manifest.replicated_tensors}
    wanted = {spec.name: spec for spec in session.replicated_specs() if spec.name in session.program.backbone}
    for name, spec in wanted.items():
        if stored.get(name) != spec:
            found = f"{stored[name].dtype} {list(stored[name].shape)}" if name in stored else "nothing"
            raise CheckpointError(
                f"the model needs {spec.dtype} {list(spec.shape)} for {name}, the checkpoint holds {found}; "
                "set the section `model` as it was trained"
            )
    unknown = [name for name in _variables(stored) if name not in wanted]
    if unknown:
        raise CheckpointError(
            f"the checkpoint holds {unknown[0]} and {len(unknown) - 1} more that the model does not have; set the "
            "section `model` as it was trained"
        )
    arrays = checkpoint.read_replicated(path, manifest)
    session.load_replicated({name: arrays[name] for name in wanted})


def _variables(stored: Iterable[str]) -> list[str]:
    """The backbone's variables among stored names. A checkpoint does not store what a variable is for; the states of a
    Paddle optimizer are recognised by the name of their variable, which theirs begins with."""
    names = sorted(name for name in stored if name.startswith("backbone."))
    found: list[str] = []
    for name in names:
        if not any(name.startswith((other + ".", other + "_")) for other in found):
            found.append(name)
    return found


def _load_classes(session: Session, path: str, manifest: Manifest, old: np.ndarray, new: np.ndarray) -> None:
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
