"""Builds programs from a configuration and the environment of a rank. Nothing is run, and no GPU is needed.

The training program reads top to bottom as docs/design.md describes it:
backbone -> gather -> sample -> head -> reduce-scatter -> backbone's gradients, summed as they are made -> updates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import paddle

from plsc.backend import collectives, half_kernels, half_precision, half_weights, ops, static
from plsc.backend.compiler import CompileError
from plsc.classifiers import ClassifierSpec, Shard, StepContext, classify
from plsc.classifiers.distillation import add_teacher
from plsc.classifiers.hard_negatives import HardNegatives
from plsc.classifiers.initializer import ShardInitializer, bias_value, default_distribution, distribution_of
from plsc.config import Config
from plsc.config.extensions import MODEL
from plsc.config.stages import HEAD
from plsc.config.user_objects import UserObjects
from plsc.engine.program.accumulation import Pass, passes, together
from plsc.engine.program.gradients import Gradients, Reduction
from plsc.engine.program.inputs import LABEL, Inputs, make_inputs
from plsc.engine.program.optimizers import Optimizers, Updates
from plsc.engine.program.programs import EvalProgram, TrainProgram
from plsc.engine.program.recomputing import recompute_backbone
from plsc.engine.program.results import SKIPPED, keep
from plsc.engine.program.update import StepEnd, append_update
from plsc.engine.program.variables import Role, variables
from plsc.errors import ConfigError
from plsc.models import build_feature, build_model
from plsc.models.base_model import BaseModel
from plsc.models.stages import Stages, StageSettings
from plsc.optim.gradients import BUCKET_BYTES
from plsc.optim.loss_scaling import LossScaling, update_scale
from plsc.parallel.environment import Environment
from plsc.rows import row_kernels
from plsc.rows.blocks import BLOCK_ROWS, MAX_ELEMENTS, gpu_block_rows
from plsc.rows.frozen_rows import FrozenRows
from plsc.rows.optimizer import RowOptimizer
from plsc.rows.paddle_optimizer import PaddleOptimizerRows, check_optimizer
from plsc.rows.shard_rows import DenseRows, RowsSpec, SampledRows, ShardRows
from plsc.rows.storage import FLOAT32

TEACHER = "teacher"  # the input with the embeddings of the model that the features follow


def make_model(config: Config, user_objects: UserObjects) -> BaseModel:
    """The user's model, or the one that the section ``model`` names. Raises ConfigError."""
    if user_objects.model is not None:
        return user_objects.model
    return build_model(**{"name": config.model.name, **MODEL.arguments(config.settings, data_format=config.layout)})


def make_spec(config: Config, embedding_size: int, seed: int) -> ClassifierSpec:
    """The ClassifierSpec of a configuration."""
    section = config.classifier
    loss, precision = config.loss(), config.mixed_precision
    return ClassifierSpec(
        num_classes=section.num_classes,
        embedding_size=embedding_size,
        loss=loss,
        scale=section.scale,
        sub_centres=section.sub_centres,
        sample_ratio=section.sample_ratio,
        model_parallel=section.model_parallel,
        with_bias=not loss.normalised,
        seed=seed,
        calc_acc=config.calc_acc,
        filter_above=section.filter_above,
        label_smoothing=section.label_smoothing,
        hard_negative_share=section.hard_negative_share,
        weighted=section.class_weights is not None,
        half=precision.scales_loss,
        storage=section.storage,
        lazy=config.class_optimizer.sparse == "lazy",
        compiled=section.compiled,
        frozen=bool(config.distill.centres),
        kernels=section.kernels,
    )


BY_DEVICE = 0  # of BuildOptions.block_rows


@dataclass(frozen=True)
class BuildOptions:
    """How the training program is built.

    block_rows: how many rows the classifier processes at a time; BY_DEVICE: BLOCK_ROWS on CPUs, on GPUs by the sizes
    (gpu_block_rows). None: all at once, as it always is for Paddle's kernels, and where a user's optimizer needs one
    dense gradient. bucket_bytes: the smallest all-reduce of the backbone's gradients. dry_run: the program is not run;
    any Paddle can then build that of a GPU (plsc.engine.memory.estimate). pixels: images are fed as uint8 and
    normalized in the program (plsc.engine.program.inputs.feeds_pixels).
    """

    block_rows: int | None = BY_DEVICE
    bucket_bytes: int = BUCKET_BYTES
    dry_run: bool = False
    pixels: bool = False


DEFAULT_OPTIONS = BuildOptions()


def build_train(
    config: Config, user_objects: UserObjects, env: Environment, seed: int, options: BuildOptions = DEFAULT_OPTIONS
) -> TrainProgram:
    """The training program of ``env.rank``. Raises ConfigError for what cannot be built."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        batch = config.step_batch_size
        given = make_inputs(config, batch, with_label=True, pixels=options.pixels, parts=config.accumulate)
        numbers = {name: paddle.static.data(name, [1], "float32") for name in ("learning_rate", "stop")}
        feeds = {**given.feeds, **numbers}
        stages = Stages(StageSettings(tuple(config.model.freeze), config.lr_factors, config.lr_layer_decay))
        made = _build_backbone(config, user_objects, given, main, stages, env)
        feature = together(made)
        backbone = static.persistables(main)
        spec = make_spec(config, feature.shape[1], seed)
        features = batch * (env.world_size if spec.model_parallel else 1)
        half = spec.half and env.on_gpu  # a CPU's classifier computes in float32
        spec = replace(spec, features=features, dry_run=options.dry_run, half=half)
        shard = Shard.of(spec, env)
        block_rows = _block_rows(config, spec, shard, env, user_objects, options)
        optimizers = None if user_objects.optimizer is not None else Optimizers.of(config)
        own = None if optimizers is None else optimizers.rows
        # where the next step is fed what depends on whether this one is skipped
        depends = optimizers is not None and bool(shard.samples or optimizers.feeds)
        skips = depends and config.mixed_precision.scales_loss
        skipped = static.create_state(SKIPPED, [1], "float32") if skips else None
        before = None if skipped is None else skipped > 0.0
        rate = RowRate(config.weight_decay, config.lr_factors.get(HEAD, 1.0), before)
        rows = make_rows(user_objects, spec, shard, env, own, rate)
        precision = config.mixed_precision
        scaling = LossScaling.create(precision.init_loss_scaling) if precision.scales_loss else None
        step = static.create_state("classifier.step", [1], "int64")
        ops.increment_(step)
        loss_scale = None if scaling is None else scaling.scale
        updates, move = None, None
        if optimizers is not None:
            updates = Updates.create(optimizers, feeds["learning_rate"], config, before)
            feeds.update(updates.feeds)
            if not spec.frozen and block_rows is not None and _can_update_in_backward(config, env):
                move = rows.mover(updates.rows)
        if spec.weighted:
            feeds["class_weight"] = paddle.static.data("class_weight", [batch], "float32")
        hard = HardNegatives.create(spec, shard, env)
        given_weight, rate_of_step = feeds.get("class_weight"), feeds["learning_rate"]
        context = StepContext(spec, shard, env, step, loss_scale, block_rows, move, given_weight, hard, rate_of_step)
        output = classify(feature, given.feeds[LABEL], rows, context)
        if config.distill.model:
            feeds[TEACHER] = paddle.static.data(TEACHER, [batch, feature.shape[1]], "float32")
            output = add_teacher(feature, feeds[TEACHER], output, context, config.distill.weight)
        reduction = Reduction(env, spec.model_parallel, config.grad_clip_norm, options.bucket_bytes)
        moving = {name: value for name, value in backbone.items() if name not in stages.frozen}
        gradients = Gradients.build(made, output, moving, feeds["stop"], scaling, reduction)
        recompute_backbone(main, made, next(iter(given.feeds.values())), config, env)
        end = StepEnd(config, user_objects, moving, rows, updates, step)
        changed = append_update(gradients, output, end)
        if scaling is not None and precision.use_dynamic_loss_scaling:
            update_scale(scaling, gradients.found, precision)
        found = {} if gradients.found is None else {"skipped": gradients.found}
        results = {"loss": output.loss, "stop": gradients.stop, **output.accuracy, **rows.counts, **found}
        keep(results, step)
        if skipped is not None:
            paddle.assign(paddle.cast(gradients.found, "float32"), output=skipped)
    if precision.enabled and not env.on_gpu:
        _refuse(half_kernels.missing(main, precision.dtype), precision.dtype)
    replicated = [
        *variables(Role.BACKBONE, backbone), *variables(Role.STEP, [step.name]),
        *variables(Role.LOSS_SCALING, [] if scaling is None else scaling.names()), *changed.variables,
    ]  # fmt: skip
    feeds.update(rows.feeds)
    parameters = gradients.parameters
    count = updates.count.name if updates is not None and updates.count is not None else None
    return TrainProgram(
        main, startup, feeds, tuple(results), replicated, spec, shard, rows, parameters, optimizers, count,
        frozenset(stages.frozen), changed.averages, hard, options.pixels,
    )  # fmt: skip


def _block_rows(
    config: Config,
    spec: ClassifierSpec,
    shard: Shard,
    env: Environment,
    user_objects: UserObjects,
    options: BuildOptions,
) -> int | None:
    """See BuildOptions. Raises ConfigError, on every rank, where all rows are one block and this would have more logits
    than an array on a GPU can."""
    smallest = Shard.of(spec, replace(env, rank=env.world_size - 1))
    unknown = shard.samples and spec.global_batch(env) > smallest.num_sample  # number of rows, see RowBlocks
    if spec.overflows(env) and env.on_gpu and (user_objects.optimizer is not None or unknown):
        whole = "an optimizer of your own" if user_objects.optimizer is not None else "a batch of more labels than that"
        raise ConfigError(
            f"{config.step_batch_keys}: {spec.features:,} features and {shard.num_sample:,} classes per rank are, with "
            f"{whole}, one array of more than {MAX_ELEMENTS:,} logits, which a GPU cannot count; use a smaller batch, "
            "more ranks or another classifier.sample_ratio"
        )
    if spec.uses_kernel(env) or user_objects.optimizer is not None:
        return None
    if options.block_rows != BY_DEVICE:
        return options.block_rows
    return gpu_block_rows(shard.num_sample * spec.sub_centres, spec.features) if env.on_gpu else BLOCK_ROWS


@dataclass(frozen=True)
class RowRate:
    """The ``weight_decay`` of the class centres, the factor of their learning rate, and ``skipped_before``: see
    plsc.rows.skipped.fed."""

    weight_decay: float
    lr_factor: float = 1.0
    skipped_before: Any = None


def make_rows(
    user_objects: UserObjects,
    spec: ClassifierSpec,
    shard: Shard,
    env: Environment,
    optimizer: RowOptimizer | None,
    rate: RowRate,
) -> ShardRows:
    """The weight of the shard in the form that the optimizer needs; ``optimizer`` is None for a user's."""
    distribution = distribution_of(user_objects.param_attr, default_distribution(spec.num_classes, spec.embedding_size))
    if spec.sub_centres > 1 and distribution.kind == "constant":
        raise ConfigError(
            f"classifier.sub_centres={spec.sub_centres}: the initializer Constant of set_distfc_attr makes all centres "
            "of a class equal, and equal ones never part; use Normal or Uniform, or set it to 1"
        )
    bias = bias_value(user_objects.bias_attr) if spec.with_bias else None
    samples = shard.samples and optimizer is not None
    # where each rank holds all rows they must stay the same: not by these on one rank and by Paddle's on another
    alike = spec.model_parallel or env.world_size == 1
    wanted = spec.compiled and not spec.frozen and alike and samples and not env.on_gpu and spec.storage == FLOAT32
    compiled = wanted and optimizer.has_kernels and row_kernels.available()
    stride = 1 + len(optimizer.slots) if compiled else 1
    rows = RowsSpec(
        # names that no layer of a user's model has by chance
        prefix=f"dist@fc@rank@{env.rank:05d}" if spec.model_parallel else "full@fc",
        shape=[shard.num_local, spec.row_size],
        initializer=ShardInitializer(shard.first, spec.seed, distribution, bias, spec.storage, stride),
        param_attr=user_objects.param_attr,
        distributed=spec.model_parallel,
        weight_decay=rate.weight_decay,
        lr_factor=rate.lr_factor,
        storage=spec.storage,
        stride=stride,
        skipped_before=rate.skipped_before,
    )
    if optimizer is None:
        check_optimizer(user_objects.optimizer, spec.storage)
    if spec.frozen:
        return FrozenRows(rows)
    if optimizer is None:
        return PaddleOptimizerRows(rows)
    make = optimizer.rows_class(samples) or (SampledRows if samples else DenseRows)
    return make(rows, optimizer)


def _can_update_in_backward(config: Config, env: Environment) -> bool:
    """True where a row can be updated before the gradients of all other rows are known, on all ranks."""
    summed = env.world_size > 1 and not config.classifier.model_parallel
    return not (summed or config.mixed_precision.enabled or config.grad_clip_norm is not None)


def build_eval(config: Config, user_objects: UserObjects, env: Environment, batch_size: int) -> EvalProgram:
    """The backbone in inference mode, which reads the variables of the training program in the same scope."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        inputs = make_inputs(config, batch_size, with_label=False)
        feature = build_feature(make_model(config, user_objects), inputs.values, is_train=False)
        everywhere = collectives.all_gather(feature, env.world_size)
    return EvalProgram(main, startup, inputs.feeds, everywhere, feature)


def _provide_half_kernels(dtype: str) -> None:
    """For a program of half precision on a CPU. Raises ConfigError."""
    try:
        half_kernels.load(dtype)
    except CompileError as error:
        raise ConfigError(f"mixed_precision.dtype={dtype!r}: cannot be computed on this CPU: {error}") from None


def _refuse(reason: str | None, dtype: str) -> None:
    """Raise ConfigError where there is a ``reason``."""
    if reason is not None:
        raise ConfigError(f"mixed_precision.dtype={dtype!r}: {reason}") from None


def _build_backbone(
    config: Config, user_objects: UserObjects, inputs: Inputs, main, stages: Stages, env: Environment
) -> list[Pass]:
    """The backbone applied to each micro-batch."""
    precision = config.mixed_precision
    half = precision.dtype if precision.enabled else None
    if half is not None and not env.on_gpu:
        _provide_half_kernels(half)
    white = {*precision.custom_white_list, *(half_precision.ALSO_IN_O2 if precision.level == "O2" else ())}
    lists = sorted(white - set(precision.custom_black_list)), list(precision.custom_black_list)
    before = half_precision.read_so_far(main)  # the normalization of pixels, whose result the net casts
    try:
        with half_precision.autocast(half, *lists):
            feature = build_feature(make_model(config, user_objects), inputs.values, is_train=True, stages=stages)
    except ConfigError as error:
        if half is not None and not env.on_gpu:
            _refuse(half_kernels.refused(error.__cause__, half), half)
        raise
    half_precision.cast_program(main, half, *lists, before)
    halves = half_weights.hoist(main, half) if half is not None and precision.level == "O2" else {}
    feature = feature if half is None else paddle.cast(feature, "float32")
    return passes(main, inputs, Pass(feature, stages.boundaries, halves))
