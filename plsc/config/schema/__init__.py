"""The schema: every key with its type, default, unit, meaning and range. No default is written anywhere else.

Numbers have upper bounds: a size or a number of threads of a billion would fail inside Paddle or the system, without a
helpful message. Floats are limited to the range of float32.

The classes are frozen: values are set through `Config`, which checks them. docs/configuration.md is generated from this
package: the top-level keys are here, each section is a file.
"""

from __future__ import annotations

import dataclasses

from plsc.config import urls
from plsc.config.option import option, section
from plsc.config.schema.classifier import DIST_LOSSES, Classifier
from plsc.config.schema.data import Data
from plsc.config.schema.distill import Distill
from plsc.config.schema.ema import Ema
from plsc.config.schema.mixed_precision import MixedPrecision
from plsc.config.schema.model import Model
from plsc.config.schema.optimizer import ClassOptimizer, Optimizer
from plsc.config.schema.remote import Remote
from plsc.config.schema.schedule import LrSchedule
from plsc.config.schema.using import Export, Predict
from plsc.config.stages import lr_factors_problem
from plsc.registry import METRICS

AUTO, NEVER, ALWAYS = "auto", "never", "always"  # of late_results

# Pairs of keys that say the same in steps and in epochs: setting one clears the other.
EXCLUSIVE = (("train_epochs", "train_steps"), ("lr_schedule.warmup_epochs", "lr_schedule.warmup_steps"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    # The bound is what every random generator used takes as a seed.
    seed: int | None = option(
        None, "The random seed; null draws one at the start and logs it.", within="[0, 2147483647]",
        setter="set_seed",
    )  # fmt: skip
    device: str = option(
        "auto", "The device; auto uses GPUs if Paddle finds any.", choices=("auto", "cpu", "gpu"),
        setter="set_device",
    )  # fmt: skip
    world_size: int | None = option(
        None, "The required number of ranks; another number is refused. null accepts any.",
        unit="ranks", within="[1, 65536]",
    )  # fmt: skip
    stall_timeout: float = option(
        600.0, "A rank that is late for a step by more than this ends the run on all ranks, with an error that names "
        "it; so does a worker that takes as long to read data (with several ranks, twice as long). 0 waits forever.",
        unit="seconds", within="[0, 1e8]",
    )  # fmt: skip
    num_threads: int = option(
        0, "CPU threads per rank; 0 divides the cores of the machine among its ranks.", unit="threads",
        within="[0, 1024]", per_rank="depends on the machine",
    )  # fmt: skip
    use_onednn: bool = option(
        True, "Run convolutions and PReLU on CPUs with oneDNN: faster, with the same results up to rounding, and about "
        "0.15 GB more memory per image of 112x112 in a ResNet50's batch. false uses Paddle's own kernels.",
    )  # fmt: skip
    plugins: list[str] = option(
        [], "Your modules that register models and so on: names of modules (`my_package.nets`) or paths of files "
        "(`nets.py`). They are imported, and so run, on every rank, before any other setting is checked.",
    )  # fmt: skip
    memory_check: bool = option(
        True, "Refuse a run on CPUs that needs more memory than its machine has free, before it begins; `plsc plan` "
        "prints the estimate. false turns the check off.",
    )  # fmt: skip
    model_save_dir: str = option(
        "output", "The directory of checkpoints, logs and exported models.", filled=True, refuse=urls.local_problem,
        setter="set_model_save_dir", attributes=("model_save_dir",),
    )  # fmt: skip
    checkpoint_dir: str = option(
        "", "The checkpoint to start from, or the directory of a run (its newest checkpoint); also an address such as "
        "s3://bucket/dir, hdfs://host:port/dir, file:///dir. Empty for none.", refuse=urls.start_problem,
        setter="set_checkpoint_dir", attributes=("checkpoint_dir",),
    )  # fmt: skip
    resume: str = option(
        "never", "auto continues from the newest checkpoint in `model_save_dir` if there is one. never refuses a "
        "`model_save_dir` that holds a run; new starts another run in `model_save_dir`/run_2, run_3 and so on.",
        choices=("never", "auto", "new"),
    )  # fmt: skip
    accept_new_labels: bool = option(
        False, "Continue from a checkpoint although images that it was trained on have other labels in the list now. "
        "Class centres are not moved, so each label must mean the same class as before. A list that is only longer "
        "is always accepted.",
    )  # fmt: skip
    init_from: str = option(
        "none", "Start a new run with weights of `init_checkpoint`: its backbone, or also the centres of its classes. "
        "Everything else, momentum and steps start from zero. A resumed run ignores it.",
        choices=("none", "backbone", "classes"),
    )  # fmt: skip
    init_checkpoint: str = option("", "The checkpoint for `init_from`, or the directory of a run.")
    label_map: str = option(
        "", "For `init_from: classes`: a text file with lines of old label, tab, new label; other classes are new. "
        "Empty takes the classes of the same name, if the checkpoint and the data have names of classes, else those of "
        "the same number, if there are as many.",
    )  # fmt: skip
    new_classes: str = option(
        "random", "Where the centres of classes begin that `init_from` does not bring: random, or mean: at the mean "
        "embedding of their images by the initial backbone, computed before the first step and as long as the other "
        "centres. Classes without images begin at random.", choices=("random", "mean"),
    )  # fmt: skip
    late_results: str = option(
        AUTO, "Read the results of a step (loss, request to stop) after the next step was started, so that a GPU does "
        "not wait for the host between two steps. A loss that is not finite is found one step later, and a stop saves "
        "after one more step; nothing is saved before the results of all its steps were read. auto does so on GPUs; "
        "always also on CPUs, where nothing is gained.", choices=(AUTO, NEVER, ALWAYS),
    )  # fmt: skip
    save_period: int = option(
        0, "Save a checkpoint every so many steps, in addition to the end of each epoch and of the run; 0 saves only "
        "those.",
        unit="steps", within="[0, 1e12]",
    )  # fmt: skip
    save_async: bool = option(
        True, "Continue training while a checkpoint is written. Needs memory for a copy of what a rank saves: weights "
        "and momentum of its classes, on rank 0 also the backbone. Where that is more than half of the free memory, "
        "and with false, training waits.",
    )  # fmt: skip
    checkpoint_replicas: int = option(
        0, "Where the machines do not share `model_save_dir`: on how many machines besides its own each shard of a "
        "checkpoint is kept. With 1, a machine that is lost for ever costs no checkpoint.",
        unit="machines", within="[0, 65535]",
    )  # fmt: skip
    max_last_checkpoint_num: int = option(
        5, "How many of the newest checkpoints are kept; 0 or less keeps all.", within="[-1e12, 1e12]",
        setter="set_max_last_checkpoint_num", attributes=("max_last_checkpoint_num",),
    )  # fmt: skip
    metrics: list[str] = option(
        ["verification"], "The metrics of the verification sets, each computed where a set has what it needs: "
        "verification needs pairs; identification and retrieval need identities, as a folder of identities or a list "
        "of path<TAB>identity has them (docs/verification.md), or one of your own (docs/add_a_metric.md).",
        registry=METRICS, filled=True,
    )  # fmt: skip
    metric_options: dict = option(
        {}, "Options of metrics, by their names: `{retrieval: {ks: [1, 10, 100]}}`.",
    )  # fmt: skip
    best_metric: str = option(
        "", "Keep the best checkpoint by this metric in `model_save_dir`/best, in addition to the newest ones: a set "
        "and a value of one of the `metrics`, such as lfw.accuracy, lfw.tar@1e-3 or faces/.recall@1; empty for none.",
    )  # fmt: skip
    protocol: str = option("exact", "The thresholds of the 10-fold accuracy: the exact best ones, or insightface's, to "
                           "reproduce its values to the digit.", choices=("exact", "insightface"))  # fmt: skip
    train_batch_size: int = option(
        128, "Images of a training step on each rank; with `accumulate` of one of its micro-batches.",
        unit="images per rank", within="[1, 1000000]",
        setter="set_train_batch_size", attributes=("train_batch_size",),
    )  # fmt: skip
    accumulate: int = option(
        1, "The micro-batches of a step on each rank, of `train_batch_size` images each. A step is one update, as on "
        "one batch of all these images, but with the activations of one micro-batch in memory; the backbone's forward "
        "pass is computed twice. Batch norm uses the statistics of each micro-batch.",
        unit="micro-batches", within="[1, 32]",
    )  # fmt: skip
    test_batch_size: int = option(
        120, "Images of a verification step on each rank.", unit="images per rank", within="[1, 1000000]",
        setter="set_test_batch_size", attributes=("test_batch_size",),
    )  # fmt: skip
    train_epochs: int | None = option(
        None, "The length of the run. Clears `train_steps`; both in one file are refused.", unit="epochs",
        within="[1, 1e6]", setter="set_train_epochs", attributes=("train_epochs",),
    )  # fmt: skip
    train_steps: int | None = option(
        180000, "The length of the run. Clears `train_epochs`; both in one file are refused.", unit="steps",
        within="[1, 1e12]", setter="set_train_steps", attributes=("train_steps",),
    )  # fmt: skip
    lr: float = option(
        0.1, "The learning rate for a global batch of `lr_reference_batch`.", within="(0, 1e30]",
        setter="set_lr", attributes=("lr",),
    )  # fmt: skip
    lr_factors: dict = option(
        {}, "Factors of the learning rate, as in {stem: 0.1, head: 10}: of stages of the backbone, and of head, the "
        "class centres. Weight decay follows the learning rate. `model.freeze` keeps a stage as it is.",
        refuse=lr_factors_problem,
    )  # fmt: skip
    lr_layer_decay: float = option(
        1.0, "The learning rate of each stage of the backbone is that of the next one times this: 0.75 is usual where "
        "a ViT is fine-tuned. The last stage, layers of no stage and the class centres have the full rate.",
        within="(0, 1]",
    )  # fmt: skip
    lr_reference_batch: int = option(
        512,
        "The learning rate is lr * global batch / lr_reference_batch. PLSC 2.2 used 512, 0.x 1024; set it to your "
        "global batch to use `lr` unscaled.",
        unit="images", within="[1, 1e12]",
    )  # fmt: skip
    momentum: float = option(0.9, "The momentum coefficient.", within="[0, 1)", setter="set_momentum")
    weight_decay: float = option(
        5e-4, "The coefficient of the L2 penalty on all weights.", within="[0, 1e30]", setter="set_weight_decay"
    )
    grad_clip_norm: float | None = option(
        None, "The largest global norm of the gradient, over all ranks; null does not clip.", within="(0, 1e30]"
    )
    log_period: int = option(
        200, "Log a line every so many steps.", unit="steps", within="[1, 1e12]",
        setter="set_log_period", attributes=("log_period",),
    )  # fmt: skip
    test_period: int = option(
        2000, "Verify every so many steps; 0 verifies only at the end.", unit="steps", within="[0, 1e12]",
        setter="set_test_period", attributes=("test_period",),
    )  # fmt: skip
    with_test: bool = option(True, "Verify while training.", setter="set_with_test", attributes=("with_test",))
    scalars: str = option(
        "none", "Also write loss, learning rate and accuracies for VisualDL or TensorBoard, to "
        "`model_save_dir`/scalars; needs the package visualdl or tensorboardX. scalars.jsonl is always written.",
        choices=("none", "visualdl", "tensorboard"),
    )  # fmt: skip
    calc_acc: bool = option(
        False, "Log the accuracy on the training batches.", setter="set_calc_acc", attributes=("calc_train_acc",)
    )
    lr_schedule: LrSchedule = section(LrSchedule, LrSchedule.__doc__)
    optimizer: Optimizer = section(Optimizer, Optimizer.__doc__)
    class_optimizer: ClassOptimizer = section(ClassOptimizer, ClassOptimizer.__doc__)
    ema: Ema = section(Ema, Ema.__doc__)
    model: Model = section(Model, Model.__doc__)
    classifier: Classifier = section(Classifier, Classifier.__doc__)
    distill: Distill = section(Distill, Distill.__doc__)
    data: Data = section(Data, Data.__doc__)
    mixed_precision: MixedPrecision = section(MixedPrecision, MixedPrecision.__doc__)
    remote: Remote = section(Remote, Remote.__doc__)
    export: Export = section(Export, Export.__doc__)
    predict: Predict = section(Predict, Predict.__doc__)

    @property
    def step_batch_size(self) -> int:
        """Images of a training step on each rank."""
        return self.train_batch_size * self.accumulate

    @property
    def step_batch_keys(self) -> str:
        """What says how many images a step has on each rank, for messages."""
        accumulate = f", accumulate={self.accumulate}" if self.accumulate > 1 else ""
        return f"train_batch_size={self.train_batch_size}{accumulate}"


__all__ = ["ALWAYS", "AUTO", "DIST_LOSSES", "EXCLUSIVE", "NEVER", "Classifier", "Settings"]
