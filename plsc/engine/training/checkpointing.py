"""Connects a session with checkpoints on disk: where a run continues, and what is stored besides the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle

from plsc import checkpoint, remote
from plsc.checkpoint import Manifest, TensorSpec
from plsc.checkpoint.collective import on_all_ranks
from plsc.checkpoint.pending_rows import MOMENTUM, describe_optimizer
from plsc.classifiers import ClassifierSpec
from plsc.classifiers.hard_negatives import NEAREST
from plsc.classifiers.loss_terms import LOSS_STATES
from plsc.config.format_value import format_value
from plsc.data import difference
from plsc.data.record import moved_classes
from plsc.engine.program.averages import begin_averages
from plsc.engine.program.same_function import require_same_function
from plsc.engine.program.session import Session
from plsc.engine.program.variables import Role
from plsc.engine.run.start import Run
from plsc.engine.training.changed_settings import log_changed_settings
from plsc.engine.training.steps import Progress
from plsc.errors import CheckpointError, DataError
from plsc.optim import loss_scaling
from plsc.rows.history import RowHistory


def open_start_checkpoint(run: Run, spec: ClassifierSpec) -> tuple[str, Manifest] | None:
    """(directory, manifest) of the checkpoint to continue from, the same on every rank and whole, or None.

    Raises CheckpointError on every rank.
    """
    config = run.config
    copies = config.resume == "auto" and remote.newest_copy(run) is not None
    own = _newest_of_run(run, spec, copies) if config.resume == "auto" else None
    path = own or run.start_dir
    if not path and copies:  # what is here was damaged
        path = remote.fetch_initial_checkpoint(run, None, resumes=True)
    if not path:
        return None
    if own is None:  # checkpoint_dir may be this run's own directory
        if run.places.several:
            checkpoint.newest(config.model_save_dir, run.group, run.places)
        else:
            checkpoint.restore_newest(config.model_save_dir, run.group)
    expected = checkpoint.Expected(spec.num_classes, spec.embedding_size, sub_centres=spec.sub_centres)
    path, manifest = checkpoint.open_checkpoint(path, run.group, expected, verified=own is not None)
    require_same_function(run, path, manifest)
    _require_same_freeze(run, path, manifest)
    _require_same_optimizers(run, path, manifest)
    _require_same_centres(run, path, manifest)
    return path, manifest


def _newest_of_run(run: Run, spec: ClassifierSpec, copies: bool) -> str | None:
    """copies: whether the run has its own where it copies its saves to, which then replace what is not whole here."""
    run_dir, places = run.config.model_save_dir, run.places
    if not places.several:
        return checkpoint.newest_intact(run_dir, run.group, replaced=copies)
    needs = checkpoint.ranges_of(spec.num_classes, run.group.world_size, spec.model_parallel)
    return checkpoint.newest_intact_of_places(run_dir, run.group, places, needs, replaced=copies)


def _require_same_freeze(run: Run, path: str, manifest: Manifest) -> None:
    """Raise CheckpointError where a run would train other stages: a frozen stage has no momentum in a checkpoint."""
    stored, own = _section(manifest, "model").get("freeze", []), run.config.model.freeze
    if not isinstance(stored, list) or sorted(map(str, stored)) != sorted(own):
        raise CheckpointError(
            f"{path}: was trained with model.freeze={format_value(stored)}, this run has {format_value(own)}; set "
            "it as it was, or begin a new run by init_from: classes, with init_checkpoint for checkpoint_dir or resume"
        )


def _require_same_optimizers(run: Run, path: str, manifest: Manifest) -> None:
    """Raise CheckpointError where a run would continue with other optimizers. Their states may have the same names and
    shapes, as those of momentum and lars, and mean something else. (A user's has states of other names.)"""
    if run.user_objects.optimizer is not None:
        return
    stored = {key: _section(manifest, key).get("name") for key in ("optimizer", "class_optimizer")}
    backbone = stored["optimizer"] or MOMENTUM  # the only one of earlier versions
    own = run.config.optimizer.name, run.config.class_optimizer.name or run.config.optimizer.name
    if own != (backbone, stored["class_optimizer"] or backbone):
        raise CheckpointError(
            f"{path}: was trained with optimizer.name={format_value(backbone)}, class_optimizer.name="
            f"{format_value(stored['class_optimizer'])}, this run has {format_value(own[0])}, "
            f"{format_value(run.config.class_optimizer.name)}, for which the stored states mean something else; set "
            "them as they were, or begin a new run by init_from: classes, with init_checkpoint for checkpoint_dir or "
            "resume"
        )


def _require_same_centres(run: Run, path: str, manifest: Manifest) -> None:
    """Raise CheckpointError where a run would train centres that stayed, or keep those that were trained: only the
    latter have states of an optimizer. A run that goes on has them in its checkpoint, and reads no other."""
    stored, own = _section(manifest, "distill").get("centres") or "", run.config.distill.centres
    if bool(stored) != bool(own):
        raise CheckpointError(
            f"{path}: was trained with distill.centres={format_value(stored)}, this run has {format_value(own)}; set "
            "it as it was, or begin a new run by init_from or distill.centres in place of checkpoint_dir or resume"
        )
    if stored != own:
        run.log.info(
            f"the class centres are those of {path}, which took them from distill.centres={format_value(stored)}; "
            f"distill.centres={format_value(own)} of this run is not read"
        )


def _section(manifest: Manifest, name: str) -> dict[str, Any]:
    """A section of the configuration of the run that saved a checkpoint; empty where it has none."""
    found = manifest.config.get(name)
    return found if isinstance(found, dict) else {}


def stored_progress(opened: tuple[str, Manifest] | None) -> Progress:
    """Where the run that wrote a checkpoint stood. Raises CheckpointError where it does not say."""
    if opened is None:
        return Progress()
    path, manifest = opened
    samples = manifest.position.get("samples")
    if type(samples) is not int or not 0 <= samples < 2**62:
        raise CheckpointError(f"{path}: position holds samples={samples!r:.40}; it must be a number of at least 0")
    return Progress(manifest.step, samples)


def compare_data(run: Run, data, path: str, manifest: Manifest) -> None:
    """Log where a run continues with other data than before. Raises DataError where the same images have other labels,
    which would train each class towards the images of another, unless ``accept_new_labels`` is set.

    The same on every rank: they have compared their data and their manifests.
    """
    now = run.data.get("training", {})
    if not manifest.data:
        run.log.info(f"{path} does not record its training data, so they cannot be compared")
        return
    found = difference(manifest.data, now, getattr(data, "record", None))
    if found is None:
        return
    if found.relabelled and not run.config.accept_new_labels:
        raise DataError(_relabelled(path, found.text))
    run.log.info(f"continuing with other data than {path} was trained with: {found.text}")


def class_names_of(run: Run, data, opened: tuple[str, Manifest] | None) -> tuple[str, ...]:
    """The names of the classes: those of the data, else those of the checkpoint ``opened``.

    Raises DataError on every rank where a class of the checkpoint has another label in the data, unless
    ``accept_new_labels`` is set.
    """
    own = tuple(getattr(data, "class_names", None) or ())
    if opened is None:
        return own
    path, manifest = opened
    stored = run.group.agree(lambda: checkpoint.read_class_names(path, manifest))
    found = moved_classes(stored, own)
    if found is not None:
        if not run.config.accept_new_labels:
            raise DataError(_relabelled(path, found.text))
        run.log.info(f"continuing with other labels than {path} was trained with: {found.text}")
    return own or tuple(stored)


def _relabelled(path: str, text: str) -> str:
    return (
        f"{path} was trained with other labels: {text}; give each class the label that it had, begin a new run by "
        "init_from: classes (docs/checkpoints.md), or set accept_new_labels: true"
    )


def load(run: Run, session: Session, path: str, manifest: Manifest) -> None:
    """Put a checkpoint into the session, from any number of ranks to this one. Raises CheckpointError on all."""

    averages = session.program.averages.values()
    averaged = checkpoint.has_averages(spec.name for spec in manifest.replicated_tensors)
    if averaged and not averages:
        raise CheckpointError(
            f"ema.decay=null: {path} has averaged weights, which this run would not continue; set ema.decay as it was "
            "trained, or start a new run with init_from: backbone or classes"
        )

    begun, left = _other_states(session, manifest)

    def fill() -> None:
        specs = [spec for spec in session.replicated_specs() if averaged or spec.name not in averages]
        own = session.tensors()
        expected = checkpoint.Expected(replicated=specs, shard=own, optional=[NEAREST, *begun, *left])
        checkpoint.check_fits(path, manifest, expected)
        known = [spec.name for spec in own if spec.name != NEAREST or _keeps_nearest(own, manifest)]
        shard = session.program.shard
        session.load_replicated(checkpoint.read_replicated(path, manifest))
        mine = shard.first, shard.first + shard.num_local
        # pending rows stay pending until they would have been brought up to date in the run that saved them
        waits = _can_resume_history(session.history, manifest)
        options = checkpoint.ReadOptions([*known, checkpoint.TOUCHED], stored=waits)
        session.load_rows(checkpoint.read_rows(path, manifest, *mine, options))
        if waits:
            session.history.resume(checkpoint.read_window(path, manifest))

    on_all_ranks(run.group, f"cannot continue from {path}", fill)
    if averages and not averaged:
        begin_averages(session)
        run.log.info(f"{path} has no averaged weights: they begin with its weights, ema.decay={run.config.ema.decay}")
    if session.program.hard is not None and not _keeps_nearest(session.tensors(), manifest):
        run.log.info(f"{path} has no hard negatives: they are collected from here on")
    if begun:
        run.log.info(f"{path} has no {', '.join(begun)}: begun as in a new run")
    if left:
        run.log.info(f"{path} has {', '.join(left)}, which this run has no use for: left out")
    scheduler = user_scheduler(run)
    if scheduler is not None and manifest.lr_state:
        scheduler.set_state_dict(dict(manifest.lr_state))
    saved_seed = manifest.random_states.get("seed")
    if saved_seed != run.seed:
        run.log.info(f"{path} was trained with seed {saved_seed}, this run continues with {run.seed}")
    section = _section(manifest, "data")
    log_changed_settings(run, path, manifest)
    saved_resize = section.get("resize", "refuse")  # earlier versions refused
    if saved_resize != run.config.data.resize:
        run.log.info(
            f"{path} was trained with data.resize={saved_resize!r:.40}, this run continues with "
            f"{run.config.data.resize!r}: images of another size look different from here on"
        )
    saved_sampler, sampler = _sampler(section), _sampler(vars(run.config.data))
    if saved_sampler != sampler:
        run.log.info(
            f"{path} was trained with data.sampler={saved_sampler}, this run continues with {sampler}: in this epoch "
            "some images come twice and others not at all"
        )
    saved_teacher, teacher = _teacher(manifest.config.get("distill")), _teacher(vars(run.config.distill))
    if saved_teacher != teacher:
        run.log.info(f"{path} was trained with {saved_teacher}, this run continues with {teacher}")
    saved_window = section.get("shuffle_window")
    if saved_window != run.config.data.shuffle_window:
        run.log.info(
            f"{path} was trained with data.shuffle_window={saved_window}, this run continues with "
            f"{run.config.data.shuffle_window}: in this epoch some images come twice and others not at all"
        )


def _other_states(session: Session, manifest: Manifest) -> tuple[list[str], list[str]]:
    """States of the loss and of its scale that (only the run, only the checkpoint) has: another loss or precision."""
    roles = Role.LOSS, Role.LOSS_SCALING
    own = {variable.stored for variable in session.program.variables if variable.role in roles}
    names = {spec.name for spec in manifest.replicated_tensors}
    stored = {name for name in names if name.startswith((LOSS_STATES, loss_scaling.PREFIX))}
    return sorted(own - stored), sorted(stored - own)


def _keeps_nearest(own: list[TensorSpec], manifest: Manifest) -> bool:
    """Whether the checkpoint has the run's table of hard negatives."""
    return any(spec.name == NEAREST and spec.with_rows(manifest.num_classes) in manifest.shard_tensors for spec in own)


def _sampler(section: Mapping[str, Any]) -> str:
    """What a section ``data`` says of the sampler, for comparison and for a message."""
    name = section.get("sampler", "shuffle")  # the only one of earlier versions
    sizes = f" ({section.get('identities')!s:.9} x {section.get('images_per_identity')!s:.9})"
    return f"{name!r:.40}{sizes if name == 'balanced' else ''}"


def _teacher(section: Any) -> str:
    """What a section ``distill`` says, for comparison and for a message. Earlier versions have none."""
    if not isinstance(section, Mapping) or not section.get("model"):
        return "no teacher"
    return f"a teacher (distill.model) of the weight {section.get('weight')!s:.20}"


def _can_resume_history(history: RowHistory | None, manifest: Manifest) -> bool:
    """True where pending rows of a checkpoint are pending for the same updates in this run."""
    if history is None or manifest.row_history is None:
        return False
    stored = dict(manifest.row_history)
    steps = stored.pop("steps")
    return stored == describe_optimizer(history.optimizer, history.weight_decay) and history.can_resume(steps)


def manifest_fields(
    run: Run, spec: ClassifierSpec, progress: Progress, epoch: int, extra: dict[str, Any]
) -> dict[str, Any]:
    """The fields of the manifest besides its tensors. Raises CheckpointError for values that it cannot hold."""
    scheduler = user_scheduler(run)
    return {
        "paddle_version": paddle.__version__,
        "num_classes": spec.num_classes,
        "sub_centres": spec.sub_centres,
        "embedding_size": spec.embedding_size,
        "epoch": epoch,
        "position": {"samples": progress.samples},
        "data": run.data.get("training", {}),
        "config": run.config.to_dict(),
        "random_states": {"seed": run.seed},
        "lr_state": plain(scheduler.state_dict()) if scheduler is not None else {},
        "extra": extra,
        "class_names": run.class_names,
    }


def user_scheduler(run: Run):
    """The learning-rate scheduler of a user's optimizer, or None."""
    rate = getattr(run.user_objects.optimizer, "_learning_rate", None)
    return rate if isinstance(rate, paddle.optimizer.lr.LRScheduler) else None


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state, and that of one within it, as plain JSON. Raises CheckpointError for what it cannot hold."""
    result = {}
    for name, value in state.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, dict):  # LinearWarmup keeps the scheduler that follows it
            value = plain(value)
        elif not isinstance(value, (bool, int, float, str, type(None))):
            raise CheckpointError(f"the optimizer's scheduler keeps {name}={value!r}, which a checkpoint cannot hold")
        result[name] = value
    return result
