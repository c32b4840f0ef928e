"""The centres of ``distill.centres``: every class has that of a teacher's checkpoint, and keeps it."""

from __future__ import annotations

import numpy as np

from plsc import checkpoint
from plsc.checkpoint.collective import on_all_ranks
from plsc.classifiers import ClassifierSpec
from plsc.engine.program.session import Session
from plsc.engine.run.start import Run
from plsc.engine.training.initial_weights import InitialWeights
from plsc.engine.training.matched_classes import class_map, load_classes, require_same_map
from plsc.errors import DataError


def open_centres(run: Run, spec: ClassifierSpec, data) -> InitialWeights | None:
    """The checkpoint of ``distill.centres`` with its classes; None where it names nothing. Every rank calls it.

    The teacher's backbone is not used: it may be another one. Raises CheckpointError or DataError on every rank, also
    where a class of the run is not among the teacher's.
    """
    if not run.config.distill.centres:
        return None
    key = f"distill.centres={run.config.distill.centres!r}"
    expected = checkpoint.Expected(embedding_size=spec.embedding_size, sub_centres=spec.sub_centres)
    path, manifest = checkpoint.open_checkpoint(run.config.distill.centres, run.group, expected)
    found = run.group.agree(lambda: InitialWeights(path, manifest, *class_map(run, path, manifest, data, key)))
    require_same_map(run, found.old, found.new)
    missing = np.flatnonzero(found.is_new(spec.num_classes))
    if len(missing):
        first = int(missing[0])
        name = f" ({run.class_names[first]!r:.80})" if first < len(run.class_names) else ""
        raise DataError(
            f"{key}: {len(missing):,} of {spec.num_classes:,} classes are not among the teacher's "
            f"{manifest.num_classes:,}, first label {first}{name}; centres that stay cannot be learnt: train the "
            "teacher on all classes, or begin at its centres by init_from: classes"
        )
    return found


def load_centres(run: Run, session: Session, found: InitialWeights) -> None:
    """Set every class of a newly initialised session; every rank calls it. Raises CheckpointError on every rank."""
    path, manifest, old, new = found.path, found.manifest, found.old, found.new
    on_all_ranks(
        run.group, f"cannot take the centres of {path}", lambda: load_classes(session, path, manifest, old, new)
    )
    left = manifest.num_classes - len(old)
    behind = f"; {left:,} classes of the checkpoint were left behind" if left else ""
    run.log.info(
        f"distill.centres: {len(new):,} classes have the centres of {path}, step {manifest.step:,}, matched "
        f"{found.how}, and keep them{behind}"
    )
