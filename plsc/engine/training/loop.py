"""The training loop."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from plsc import checkpoint, remote
from plsc.backend.onednn import use_onednn
from plsc.data import Loader, LoaderOptions, SampleOrder
from plsc.data.opening import sample_order
from plsc.engine.evaluation.best import Best
from plsc.engine.evaluation.data import check_global_batch, compare_samples, make_training_data
from plsc.engine.evaluation.evaluate import Embedder, verify_all
from plsc.engine.evaluation.sets_check import check_sets
from plsc.engine.memory.check import check_memory
from plsc.engine.program.averages import averaged_weights, begin_averages
from plsc.engine.program.build import TEACHER, BuildOptions, EvalProgram, build_eval, build_train
from plsc.engine.program.inputs import feeds_pixels
from plsc.engine.program.session import Session
from plsc.engine.run import consistency
from plsc.engine.run.run_log import clock
from plsc.engine.run.start import Run
from plsc.engine.run.stopping import DataTimeout, StopRequest
from plsc.engine.training import checkpointing
from plsc.engine.training.before import (
    log_accumulation,
    log_classes_without_images,
    log_frozen,
    log_hard_negatives,
    log_missed_steps,
    log_which_weights,
    require_embedding_size,
    require_same_data,
)
from plsc.engine.training.class_weights import read_class_weights
from plsc.engine.training.initial_weights import load_initial_weights, open_initial_weights
from plsc.engine.training.late import BegunStep, make_reading
from plsc.engine.training.meter import Meter
from plsc.engine.training.new_classes import begin_at_means, read_new_classes
from plsc.engine.training.old_classes import Forgetting
from plsc.engine.training.result import Result
from plsc.engine.training.saver import Saver, Target
from plsc.engine.training.steps import Progress, TrainingSteps
from plsc.engine.training.teacher import StepInputs
from plsc.engine.training.teacher_centres import load_centres, open_centres
from plsc.errors import ConfigError, TrainingError
from plsc.evaluation.results import Verifications
from plsc.models import require_same_parameters


def train(run: Run) -> Result:
    """Train as configured. Raises a PlscError; earlier checkpoints stay."""
    config = run.config
    for line in config.without_effect() + run.user_objects.without_effect(config):
        run.log.info(line)
    log_classes_without_images(run)
    options = BuildOptions(pixels=feeds_pixels(config, run.user_objects))
    program = build_train(config, run.user_objects, run.env, run.seed, options)
    consistency.log_uncompiled_ranks(program.rows.spec.compiled, run.group, run.log)
    log_accumulation(run, program)
    log_missed_steps(run, program)
    log_hard_negatives(run, program)
    log_which_weights(run)
    if line := program.spec.without_kernel(run.env):
        run.log.info(line)
    require_embedding_size(run, program)
    log_frozen(run, program)
    evaluation = build_eval(config, run.user_objects, run.env, config.test_batch_size) if config.with_test else None
    if evaluation is not None:
        require_same_parameters(program.main, evaluation.main)
    check_memory(run, program, evaluation)
    with contextlib.closing(Session(program, run.env, run.seed, make_reading(run))) as session:
        return _train(run, session, evaluation)


def _train(run: Run, session: Session, evaluation: EvalProgram | None) -> Result:
    config, program = run.config, session.program
    check_sets(run)
    data = make_training_data(config, run.user_objects, run.seed, run.log.info)
    compare_samples(run, data)
    require_same_data(run, data)
    check_global_batch(config, len(data), run.env)
    opened = checkpointing.open_start_checkpoint(run, program.spec)
    if opened is not None:
        checkpointing.compare_data(run, data, *opened)
    run = replace(run, class_names=checkpointing.class_names_of(run, data, opened))
    best = Best(run, opened)
    progress = checkpointing.stored_progress(opened)
    remote.warn_of_newer_copies(run, progress.step)
    order = sample_order(config, data)
    steps = TrainingSteps.of(config, run.env.world_size, order.epoch_length(len(data)), progress)
    for line in steps.schedule.without_effect():
        run.log.info(line)
    if order.balanced is not None:
        run.log.info(order.balanced.note())
    initial = None if opened is not None else open_initial_weights(run, program.spec, data)
    centres = None if opened is not None else open_centres(run, program.spec, data)
    request = StopRequest()
    # loaders fork their workers before the executor has threads
    loading = _loader(run, data, steps, order, request, program.pixels)
    with loading as loader, read_new_classes(run, data, initial, request) as images:
        session.class_weights = read_class_weights(run)
        session.start(run.group)
        if config.use_onednn and not run.env.on_gpu:
            for built in filter(None, (program, evaluation)):
                use_onednn(built.main)
        forgetting = None
        if initial is not None:
            load_initial_weights(run, session, initial)
            begin_at_means(run, session, images)
            forgetting = Forgetting.begin(run, session, data, initial)
        if centres is not None:
            load_centres(run, session, centres)
        if opened is None:
            begin_averages(session)
        else:
            forgetting = Forgetting.resume(run, data, opened[1].extra)
            checkpointing.load(run, session, *opened)
            run.log.info(f"continue from {opened[0]}, step {progress.step}")
        protect = opened[0] if opened else None
        with request, Saver(run, session, protect) as saver:
            checkpoints = Checkpoints(saver, best, protect, forgetting)
            return Loop(run, session, evaluation, steps, request, checkpoints).run(loader)


def _loader(
    run: Run, data, steps: TrainingSteps, order: SampleOrder, request: StopRequest, pixels: bool
) -> Loader:
    timeout = DataTimeout(request, run.config.stall_timeout, run.env.world_size)
    options = LoaderOptions(stop_waiting=timeout, pixels=pixels)
    sampler = steps.sampler(run.config.step_batch_size, run.env, run.seed, order)
    return Loader(data, sampler, run.config.data.num_workers, *steps.data_steps(), options)


@dataclass(frozen=True)
class Checkpoints:
    """What the loop saves with. start: the checkpoint that the run started from, None for a new run. forgetting: also
    stored in checkpoints."""

    saver: Saver
    best: Best
    start: str | None
    forgetting: Forgetting | None = None

    @property
    def extra(self) -> dict[str, Any]:
        """What a checkpoint stores besides the run's state."""
        return {**self.best.extra, **({} if self.forgetting is None else self.forgetting.extra)}


class Loop:
    """Step after step: train, log, verify, save. It may read the results of a step when it has started the next one;
    before it verifies or saves it has them all."""

    def __init__(
        self,
        run: Run,
        session: Session,
        evaluation: EvalProgram | None,
        steps: TrainingSteps,
        request: StopRequest,
        checkpoints: Checkpoints,
    ):
        self._run, self._session, self._steps, self._request = run, session, steps, request
        self._saver, self._best, self._start = checkpoints.saver, checkpoints.best, checkpoints.start
        self._checkpoints, self._ahead = checkpoints, session.reading.ahead
        self._run_target = Target(run.config.model_save_dir, run.config.max_last_checkpoint_num)
        self._embedder = None
        if evaluation is not None:
            self._embedder = Embedder(run.config, run.env, evaluation, session.run)
        self._averaged = run.config.ema.decay is not None and run.config.ema.weights != checkpoint.LAST
        self._inputs = StepInputs(run)
        self._scheduler = checkpointing.user_scheduler(run)
        self._meter = Meter(steps)
        self._saturated: dict[str, int] = {}  # numbers, see RowTable.cut_count
        self._unverified: dict[int, str] = {}
        self._verified = Verifications({})

    def run(self, loader: Loader) -> Result:
        run, steps = self._run, self._steps
        for line in self._headlines():
            run.log.info(line)
        loss, path, stop = math.nan, "", False
        first = steps.first.step
        if self._best.resume(first) and first < steps.last and self._verifies(first):
            self._verify(first, self._start)
        begun: deque[BegunStep] = deque()
        for step, (_, images, labels) in enumerate(self._meter.timed(loader), start=first):
            begun.append(self._begin(step, images, labels))
            done = step + 1
            while len(begun) > (0 if stop or self._saves(done) or self._verifies(done) else self._ahead):
                loss, asked = self._finish(begun.popleft())
                stop = stop or asked
            if begun:
                continue
            saved = self._save(done, self._run_target) if stop or self._saves(done) else None
            path = saved or path
            if stop:
                self._saver.finish()  # a stop may not leave time for a verification
            if self._verifies(done):
                self._verify(done, saved)
            if stop and done < steps.last:
                self._saver.finish()
                run.log.info(f"stopped: saved after step {done:,} of {steps.last:,}; `resume: auto` continues there")
                return Result(done, loss, path, self._verified, stopped=True, unverified=self._unverified)
        if steps.first.step >= steps.last:
            run.log.info(f"nothing to do: the checkpoint is at step {steps.first.step:,} of {steps.last:,}")
            path = self._start or ""
            self._verify(steps.first.step, self._start)
        self._saver.finish()
        forgetting = self._checkpoints.forgetting if steps.first.step < steps.last else None
        with averaged_weights(self._session) if self._averaged else contextlib.nullcontext():
            old = None if forgetting is None else forgetting.end(self._session)
        return Result(steps.last, loss, path, self._verified, unverified=self._unverified, old_classes=old)

    def _begin(self, step: int, images: np.ndarray, labels: np.ndarray) -> BegunStep:
        run, lr = self._run, self._steps.schedule.lr(step)
        if run.user_objects.optimizer is not None:
            lr = float(run.user_objects.optimizer.get_lr())
        run.group.begin_step(step + 1)
        results = self._session.step(step, self._inputs(images, labels), lr, self._request.requested)
        if self._scheduler is not None:
            self._scheduler.step()
        return BegunStep(step, labels, lr, results)

    def _finish(self, begun: BegunStep) -> tuple[float, bool]:
        """(loss, whether a rank is to stop) of a step, once it has ended."""
        results = dict(begun.results)
        loss, stop = results["loss"], results.pop("stop") > 0
        self._require_finite(loss, begun.step + 1, begun.labels)  # as the log counts
        self._meter.add(loss)
        self._log_step(begun.step + 1, results, begun.lr)
        return loss, stop

    def _headlines(self) -> tuple[str, str]:
        steps, env, program = self._steps, self._run.env, self._session.program
        return (
            f"train: {program.spec.num_classes:,} classes, {steps.num_images:,} images, {env.world_size} rank(s) on "
            f"{env.device}, seed {self._run.seed}",
            f"train: steps {steps.first.step:,} to {steps.last:,}, global batch {steps.global_batch:,}, "
            f"{program.shard.num_sample:,} of {program.shard.num_local:,} local classes per step",
        )

    def _require_finite(self, loss: float, step: int, labels: np.ndarray) -> None:
        # the loss is the same on every rank, so all of them stop here
        if math.isfinite(loss):
            return
        number = self._session.program.spec.num_classes
        wrong = labels[(labels < 0) | (labels >= number)].reshape(-1)
        wrong = sum(self._run.group.all_gather([int(label) for label in wrong[:3]]), [])
        if wrong:
            raise TrainingError(
                f"the loss is {loss} at step {step}: label {wrong[0]} is outside 0..{number - 1} (set by "
                f"classifier.num_classes={number}); nothing of this step was saved; correct the labels"
            )
        raise TrainingError(
            f"the loss is {loss} at step {step}; nothing of this step was saved; lower lr, add warm-up, or set "
            "grad_clip_norm, and continue from the last checkpoint"
        )

    def _log_step(self, done: int, results: dict[str, float], lr: float) -> None:
        run, steps, meter = self._run, self._steps, self._meter
        short = f"loss {results['loss']:.4f} lr {lr:.6f}"
        run.log.progress(
            f"{short} {meter.images_per_second():.1f} images/s {clock(meter.seconds_left(done))} left", done, steps.last
        )
        if done % run.config.log_period and done != steps.last:
            return
        extra = "".join(f", {name} {results[name]:.5f}" for name in ("acc1", "acc5", TEACHER) if name in results)
        run.log.info(
            f"train: step {done:,}/{steps.last:,}, epoch {steps.epoch(done - 1)}, loss {results['loss']:.4f}, "
            f"mean {meter.mean_loss():.4f}, lr {lr:.6g}, {meter.images_per_second():,.1f} images/s, "
            f"data wait {100 * meter.data_wait():.1f} %, left {clock(meter.seconds_left(done))}{extra}"
        )
        for name in self._session.program.rows.counts:
            self._log_saturation(name, int(results[name]))
        speed = {"images_per_second": round(meter.images_per_second(), 3), "data_wait": round(meter.data_wait(), 4)}
        run.log.scalars(done, {**results, "mean_loss": meter.mean_loss(), "lr": lr, **speed})
        meter.restart()

    def _log_saturation(self, name: str, cut: int) -> None:
        new, self._saturated[name] = cut - self._saturated.get(name, 0), cut
        if new > 0:
            slots = self._session.program.optimizers.rows.slots
            (limit,) = (slot.float16_limit for slot in slots if slot.cut_count == name)
            self._run.log.info(
                f"classifier.storage=float16: {new:,} values of this rank's {name.removesuffix('_cut')} were too large "
                f"and were clipped to {limit:.2f}; bfloat16 and float32 hold them"
            )

    def _verifies(self, done: int) -> bool:
        period = self._run.config.test_period
        return self._embedder is not None and (done == self._steps.last or bool(period and done % period == 0))

    def _verify(self, done: int, saved: str | None) -> None:
        """Verify after ``done`` steps, and keep the checkpoint if it is the best. Errors are logged and reported at the
        end; they do not end the run. ``saved``: the checkpoint of this step, if there is one."""
        if self._embedder is None:
            return
        began, run, failures = time.monotonic(), self._run, {}
        with averaged_weights(self._session) if self._averaged else contextlib.nullcontext():
            results = verify_all(run.config, run.user_objects, self._embedder, group=run.group, failures=failures)
        for name, one in results.items():
            for line in one.lines():
                run.log.info(f"test: step {done:,}, {line}")
            run.log.scalars(done, {"test": name, **one.record})
        run.log.info(f"test: took {time.monotonic() - began:.1f} s")
        self._meter.pause(time.monotonic() - began)
        try:
            if self._best.improved(done, {name: one.values for name, one in results.items()}):
                self._save_best(done, saved)
        except ConfigError as error:  # the pairs do not support the metric
            failures["best_metric"] = str(error)
        if failures:
            self._unverified[done] = "; ".join(failures.values())
            run.log.info(f"verification failed at step {done:,}, training continues: {self._unverified[done]}")
        if results:
            self._verified = Verifications(results)

    def _saves(self, done: int) -> bool:
        period, last = self._run.config.save_period, done == self._steps.last
        return self._steps.ends_epoch(done) or bool(period and done % period == 0) or last

    def _save_best(self, done: int, saved: str | None) -> None:
        target = Target(self._best.run_dir, 1)
        if saved is None:
            self._save(done, target)
        else:
            run_dir = os.path.dirname(os.path.dirname(os.path.realpath(saved)))
            own = run_dir == os.path.realpath(self._run_target.run_dir)
            self._saver.link(
                saved, [self._run_target] * own + [target], self._checkpoints.extra
            )  # both record which one is the best

    def _save(self, done: int, target: Target) -> str:
        began = time.monotonic()
        if done == self._steps.last:
            self._session.bring_rows_up_to_date()  # the last checkpoint is for all readers
        progress = Progress(done, self._steps.samples(done))
        path = self._saver.save(progress, self._steps.epoch(done), [target], self._checkpoints.extra)
        self._meter.pause(time.monotonic() - began)
        return path
