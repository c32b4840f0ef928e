"""The actions behind Entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plsc import remote
from plsc.cleaning.report import Report
from plsc.cleaning.request import Request
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.cleaning.clean import clean as run_clean
from plsc.engine.cleaning.merge import Merged
from plsc.engine.cleaning.merge import merge_centres as run_merge
from plsc.engine.cleaning.training_images import check_training_images
from plsc.engine.evaluation import left_open
from plsc.engine.evaluation.data import Records, check_training_data, check_verification
from plsc.engine.evaluation.outputs import Outputs
from plsc.engine.export.export import export
from plsc.engine.export.onnx import require_onnx
from plsc.engine.export.targets import target_of
from plsc.engine.inference import trained_model
from plsc.engine.inference.predict import Prediction
from plsc.engine.inference.predict import predict as run_prediction
from plsc.engine.inference.settings import with_stored_settings
from plsc.engine.memory.plan import MemoryPlan
from plsc.engine.memory.plan import plan as make_plan
from plsc.engine.program.inputs import input_names
from plsc.engine.run.start import Run, start
from plsc.engine.run.stopping import EXIT_STOPPED
from plsc.engine.training.loop import train as run_training
from plsc.engine.training.result import Result
from plsc.engine.training.teacher import check_teacher
from plsc.errors import ConfigError, VerificationError
from plsc.evaluation.results import Verifications
from plsc.parallel.environment import Environment


def train(config: Config, user_objects: UserObjects) -> Result:
    """Train, verify and save. Every rank calls it. Raises a PlscError, on every rank.

    A run that SIGTERM stops saves and exits with status EXIT_STOPPED (SystemExit). A run that was trained and saved,
    but failed to verify at some step, raises a VerificationError with the result.
    """
    notes: list[str] = []

    def check(config: Config, user_objects: UserObjects, env: Environment) -> Records:
        check_teacher(config)
        return check_training_data(config, user_objects, env, notes)

    with start(config, user_objects.for_one_run(), check, continues=True) as run:
        for line in notes:
            run.log.info(line)
        remote.check_destination(run)
        result = run_training(run)
        remote.publish_checkpoints(run)
    if result.stopped:
        raise SystemExit(EXIT_STOPPED)
    if result.unverified:
        step, reason = next(iter(result.unverified.items()))
        raise VerificationError(
            f"trained and saved ({result.checkpoint}), but verification failed at "
            f"{_steps(result.unverified)}, at step {step}: {reason}",
            result,
        )
    return result


def _steps(failed: dict[int, str]) -> str:
    shown = ", ".join(map(str, list(failed)[:10])) + (", ..." if len(failed) > 10 else "")
    return f"{len(failed)} step(s): {shown}"


def test(config: Config, user_objects: UserObjects, json_file: str = "", html_file: str = "") -> Verifications:
    """The metrics of the model in ``checkpoint_dir`` on every set, equal on all ranks.

    json_file, html_file: where rank 0 writes the metrics and a page that shows them; "" for neither.
    """
    outputs = Outputs(json_file, html_file)

    def check(config: Config, user_objects: UserObjects, env: Environment) -> Records:
        _check_checkpoint(config, user_objects, env)
        records = check_verification(config, user_objects)
        if env.rank == 0:
            outputs.check()
        return records

    config, taken = with_stored_settings(config, user_objects)
    with start(config, user_objects, check) as run:
        _say(run, taken)
        return trained_model.test(run, outputs)


def predict(config: Config, user_objects: UserObjects) -> Prediction:
    """The features of the images, in order, without augmentation; written to ``model_save_dir``/predictions."""
    config, taken = with_stored_settings(config, user_objects)
    with start(config, user_objects, _check_checkpoint) as run:
        _say(run, taken)
        return run_prediction(run)


def clean(config: Config, user_objects: UserObjects, request: Request) -> Report | None:
    """Errors in the training data by the embeddings of the model in ``checkpoint_dir``; None on all ranks but 0."""
    return _on_training_images("clean", config, user_objects, lambda run: run_clean(run, request))


def merge_centres(config: Config, user_objects: UserObjects) -> Merged | None:
    """The checkpoint in ``checkpoint_dir`` with one centre of each class, in ``model_save_dir``; None on all ranks but
    0."""
    return _on_training_images("merge-centres", config, user_objects, run_merge)


def _on_training_images(command: str, config: Config, user_objects: UserObjects, work: Callable[[Run], Any]) -> Any:
    """What ``work`` returns, in a run of the trained model whose training images can be read."""

    def check(config: Config, user_objects: UserObjects, env: Environment) -> None:
        _check_checkpoint(config, user_objects, env)
        check_training_images(config, user_objects, command)

    config, taken = with_stored_settings(config, user_objects)
    with start(config, user_objects, check) as run:
        _say(run, taken)
        return work(run)


def convert_for_prediction(config: Config, user_objects: UserObjects) -> str:
    """Export the model in ``checkpoint_dir`` for plsc.Predictor; returns its directory."""
    config, taken = with_stored_settings(config, user_objects)
    with start(config, user_objects, _check_export) as run:
        _say(run, taken)
        remote.check_destination(run)
        directory = export(run)
        remote.publish(run, directory)
        return directory


def _say(run: Run, line: str) -> None:
    if line:
        run.log.info(line)


def _check_checkpoint(config: Config, user_objects: UserObjects, env: Environment) -> None:
    if not config.checkpoint_dir and not remote.start_url(config):
        raise ConfigError(
            "checkpoint_dir is empty: set it to a checkpoint, to the directory of a run or to an exported model"
        )
    input_names(config)


def _check_export(config: Config, user_objects: UserObjects, env: Environment) -> None:
    _check_checkpoint(config, user_objects, env)
    target = target_of(config)
    target.check(config)
    if "onnx" in target.kinds:
        require_onnx()


def plan(config: Config, user_objects: UserObjects, ranks: int | None, memory_gb: float | None) -> MemoryPlan:
    """The memory that each rank of ``train`` will need. Runs nothing and writes nothing; data are read only to count
    the classes, for ``classifier.num_classes: null``. Raises ConfigError."""
    return make_plan(left_open.with_classes(config, user_objects), user_objects, ranks, memory_gb)


__all__ = ["Run", "clean", "convert_for_prediction", "merge_centres", "plan", "predict", "test", "train"]
