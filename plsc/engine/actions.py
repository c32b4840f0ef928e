"""The actions behind Entry."""

from __future__ import annotations

from plsc import remote
from plsc.config import Config
from plsc.config.parts import Parts
from plsc.engine.evaluation.data import Records, check_training_data, check_verification, input_names
from plsc.engine.evaluation.judging import Outputs
from plsc.engine.export.export import export
from plsc.engine.export.onnx import require_onnx
from plsc.engine.inference import net as inference
from plsc.engine.inference.predict import Prediction
from plsc.engine.inference.predict import predict as run_prediction
from plsc.engine.inference.settings import with_stored
from plsc.engine.memory.plan import MemoryPlan
from plsc.engine.memory.plan import plan as make_plan
from plsc.engine.run.start import Run, start
from plsc.engine.run.stopping import EXIT_STOPPED
from plsc.engine.training.loop import Result
from plsc.engine.training.loop import train as run_training
from plsc.errors import ConfigError, VerificationError
from plsc.evaluation.results import Verifications
from plsc.parallel.environment import Environment


def train(config: Config, parts: Parts) -> Result:
    """Train, verify, save. Every rank calls it. Raises a PlscError, on every rank.

    A run that SIGTERM stops saves and ends the process with status EXIT_STOPPED (SystemExit). One that was trained and
    saved, but not verified at each step where it should have been, raises a VerificationError that holds the result.
    """
    with start(config, parts.for_one_run(), check_training_data, continues=True) as run:
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


def test(config: Config, parts: Parts, json_file: str = "", html_file: str = "") -> Verifications:
    """The numbers of the net in ``checkpoint_dir`` on every set, the same on each rank.

    json_file, html_file: where rank 0 writes the figures and the page that shows them; "" for nowhere.
    """
    outputs = Outputs(json_file, html_file)

    def check(config: Config, parts: Parts, env: Environment) -> Records:
        _check_checkpoint(config, parts, env)
        records = check_verification(config, parts)
        if env.rank == 0:
            outputs.check()
        return records

    config, taken = with_stored(config, parts)
    with start(config, parts, check) as run:
        _say(run, taken)
        return inference.test(run, outputs)


def predict(config: Config, parts: Parts) -> Prediction:
    """The features of the pictures, in order, not augmented; written to ``model_save_dir``/predictions."""
    config, taken = with_stored(config, parts)
    with start(config, parts, _check_checkpoint) as run:
        _say(run, taken)
        return run_prediction(run)


def convert_for_prediction(config: Config, parts: Parts) -> str:
    """Export the net in ``checkpoint_dir`` to ``model_save_dir``/inference, which is returned (for plsc.Predictor)."""
    config, taken = with_stored(config, parts)
    with start(config, parts, _check_export) as run:
        _say(run, taken)
        remote.check_destination(run)
        directory = export(run)
        remote.publish(run, directory)
        return directory


def _say(run: Run, line: str) -> None:
    if line:
        run.journal.say(line)


def _check_checkpoint(config: Config, parts: Parts, env: Environment) -> None:
    if not config.checkpoint_dir and not remote.start_url(config):
        raise ConfigError(
            "checkpoint_dir is empty: set it to a checkpoint, to the directory of a run or to an exported model"
        )
    input_names(config)


def _check_export(config: Config, parts: Parts, env: Environment) -> None:
    _check_checkpoint(config, parts, env)
    if config.export.format != "paddle":
        require_onnx()


def plan(config: Config, parts: Parts, ranks: int | None, memory_gb: float | None) -> MemoryPlan:
    """What each rank of ``train`` will need in memory. Runs nothing, reads no data, writes nothing."""
    return make_plan(config, parts, ranks, memory_gb)


__all__ = ["Run", "convert_for_prediction", "plan", "predict", "test", "train"]
