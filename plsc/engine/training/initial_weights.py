"""Initial weights from a checkpoint: the backbone alone, or class centres as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.checkpoint.collective import on_all_ranks
from plsc.classifiers import ClassifierSpec
from plsc.engine.program.same_function import require_same_function
from plsc.engine.program.session import Session
from plsc.engine.run.start import Run
from plsc.engine.training.matched_classes import class_map, load_classes, require_same_map
from plsc.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class InitialWeights:
    """The checkpoint that ``init_from`` names, and the classes that come over: ``old`` labels [n] of the checkpoint, in
    rising order, are the labels ``new`` [n] of the run; ``how`` they were matched. All None for the backbone alone."""

    path: str
    manifest: Manifest
    old: np.ndarray | None = None
    new: np.ndarray | None = None
    how: str = ""

    def is_new(self, num_classes: int) -> np.ndarray:
        """[num_classes] bool: the classes of the run that do not come over."""
        found = np.ones(num_classes, bool)
        if self.new is not None:
            found[self.new] = False
        return found


def open_initial_weights(run: Run, spec: ClassifierSpec, data) -> InitialWeights | None:
    """What ``init_from`` names, checked; None where it names nothing. Every rank calls it.

    ``data``: the training data. Raises CheckpointError or DataError on every rank.
    """
    config = run.config
    if config.init_from == "none":
        return None
    if config.new_classes == "mean" and data.sequential:
        raise ConfigError(
            "new_classes='mean': train_reader gives images in its own order only; use train_dataset or a data source, "
            "or new_classes: random"
        )
    with_classes = config.init_from != "backbone"
    expected = checkpoint.Expected(
        embedding_size=spec.embedding_size, sub_centres=spec.sub_centres if with_classes else None
    )
    path, manifest = checkpoint.open_checkpoint(config.init_checkpoint, run.group, expected)
    require_same_function(run, path, manifest)
    if config.init_from == "backbone":
        return InitialWeights(path, manifest)
    key = "init_from='classes'"
    found = run.group.agree(lambda: InitialWeights(path, manifest, *class_map(run, path, manifest, data, key)))
    require_same_map(run, found.old, found.new)
    return found


def load_initial_weights(run: Run, session: Session, found: InitialWeights) -> None:
    """Load the weights into a newly initialised session; every rank calls it.

    Momentum, step and all other state start from zero. Raises CheckpointError on every rank, before training.
    """
    path, manifest, old, new = found.path, found.manifest, found.old, found.new
    weights = run.config.ema.weights
    what = f"cannot start from {path}"
    on_all_ranks(run.group, what, lambda: _load_backbone(session, path, manifest, weights))
    kind = " (averaged weights)" if checkpoint.uses_averages(path, manifest, weights) else ""
    if old is None or new is None:
        run.log.info(f"start with the backbone{kind} of {path}, step {manifest.step:,}")
        return
    on_all_ranks(run.group, what, lambda: load_classes(session, path, manifest, old, new))
    run.log.info(
        f"start with the backbone{kind} and {len(new):,} classes of {path}, step {manifest.step:,}, "
        f"matched {found.how}; "
        f"{session.program.spec.num_classes - len(new):,} classes of this run are new, "
        f"{manifest.num_classes - len(old):,} of the checkpoint were left behind"
    )


def _load_backbone(session: Session, path: str, manifest: Manifest, weights: str) -> None:
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
    arrays = checkpoint.read_weights(path, manifest, weights)
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
