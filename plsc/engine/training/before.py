"""What is checked and logged about a training program before it runs."""

from __future__ import annotations

import math

from plsc import checkpoint
from plsc.backend import private, program_view
from plsc.classifiers.hard_negatives import COUNT
from plsc.config import OPTIONS
from plsc.engine.memory.estimate import executor_bytes
from plsc.engine.program.programs import TrainProgram
from plsc.engine.run.consistency import require_same
from plsc.engine.run.start import Run
from plsc.errors import ConfigError, DataError
from plsc.files import class_names


def log_classes_without_images(run: Run) -> None:
    """A number of classes that is not that of the data: a slip, or classes that are to come."""
    number, found = run.config.classifier.num_classes, run.data["training"].get("labels")
    if found is not None and found < number:
        usual = ", the default" if number == OPTIONS["classifier.num_classes"].default else ""
        run.log.info(
            f"{found:,} of {number:,} classes have images (classifier.num_classes={number}{usual}; null counts them): "
            "the others cost memory and time, and are pushed away from all others"
        )


def log_frozen(run: Run, program: TrainProgram) -> None:
    """What ``model.freeze`` leaves as it is."""
    if not program.frozen:
        return
    trained = sum(math.prod(value.shape) for value in program.parameters)
    run.log.info(
        f"model.freeze: {', '.join(run.config.model.freeze)}: not trained; batch norm and dropout as in evaluation, "
        f"batch statistics as they are; {trained:,} parameters of the backbone are trained"
    )


def log_which_weights(run: Run) -> None:
    """Which weights are verified, where there are two kinds."""
    ema = run.config.ema
    if ema.decay is not None and run.config.with_test:
        which = "the weights of the last step" if ema.weights == checkpoint.LAST else "the averaged weights"
        run.log.info(f"verification uses {which} (ema.decay={ema.decay}, ema.weights={ema.weights})")


def log_missed_steps(run: Run, program: TrainProgram) -> None:
    """Class centres that do not make up missed steps, or do so slowly."""
    if program.rows.touched is None:
        return
    if program.spec.lazy:
        run.log.info(
            "class_optimizer.sparse: lazy: a class that a step does not sample stays as it is in that step, without "
            "weight decay and momentum; exact is the dense optimizer, at the same cost"
        )
    elif program.optimizers.rows.repeats_missed_steps:
        run.log.info(
            f"class centres: {program.optimizers.rows.name} repeats the steps that a class has missed, some "
            f"{10 / program.spec.sample_ratio:,.0f} passes over the sampled classes in each step; "
            "class_optimizer.name: momentum makes up for them in one"
        )


def log_hard_negatives(run: Run, program: TrainProgram) -> None:
    """How much of the sample they can be: a small batch does not name as many as the share allows, and the classes of a
    large one leave no room for them."""
    spec, shard = program.spec, program.shard
    if spec.hard_negative_share == 0.0:
        return
    share = f"classifier.hard_negative_share={spec.hard_negative_share}"
    if program.hard is None:
        run.log.info(
            f"{share}: there are none, as it is less than one of the {shard.num_sample:,} classes that a rank samples"
        )
        return
    most, batch = program.hard.num_hard * shard.world_size, run.config.step_batch_size * run.env.world_size
    named, room = batch * COUNT, max(0, shard.num_sample * shard.world_size - min(batch, spec.num_classes))
    limits = [
        f"a global batch of {batch:,} names at most {named:,}" if named < most else "",
        f"where the global batch has {min(batch, spec.num_classes):,} classes, its own leave room for {room:,}"
        if room < most else "",
    ]  # fmt: skip
    run.log.info(
        f"{share}: up to {most:,} of the {shard.num_sample * shard.world_size:,} sampled classes are hard negatives"
        + "".join(f"; {limit}" for limit in limits if limit)
    )


def log_accumulation(run: Run, program: TrainProgram) -> None:
    """What several micro-batches a step cost, and what they do not make equal to one batch."""
    count, batch = run.config.accumulate, run.config.train_batch_size
    if count == 1:
        return
    try:
        kinds = [op.kind for op in program_view.operations(program.main)]
    except private.Missing:  # what the program has cannot be told
        kinds = []
    size = ""
    if kinds:
        taken = executor_bytes(len(kinds)) / 1e9
        size = f", in a program of {len(kinds):,} operations, which take {taken:.2f} GB of the host's memory"
    run.log.info(
        f"accumulate={count}: a step has {count} micro-batches of {batch} images on each rank; the backbone's forward "
        f"pass is computed twice{size}"
    )
    if "batch_norm" in kinds:
        run.log.info(
            f"accumulate={count}: batch norm uses the statistics of each {batch} images, and updates its running "
            f"statistics {count} times a step"
        )


def require_same_data(run: Run, data) -> None:
    """Raise DataError on every rank where the ranks have other numbers of images or names of classes."""
    names = class_names.summary(getattr(data, "class_names", None))
    facts = {"the number of training images": len(data), "the list of class names": names}
    require_same(run.group, DataError, facts)


def require_embedding_size(run: Run, program: TrainProgram) -> None:
    """Raise ConfigError where the model does not return features of the size that is set."""
    wanted, found = run.config.model.embedding_size, program.spec.embedding_size
    if found != wanted:
        raise ConfigError(
            f"model.embedding_size={wanted}: the model returns features of {found}; set it to that or change the model"
        )
