"""The schema: every key with its type, default, unit, meaning and range. No default is written anywhere else.

Numbers are bounded where more cannot be meant: a size or a number of threads of a billion ends inside Paddle or the
machine, without a word that helps. Floats end where float32 does.

The classes are frozen: a value gets in through `Config`, which checks it. docs/configuration.md is made from this file.
"""

from __future__ import annotations

import dataclasses

from plsc.config import urls
from plsc.config.option import option, section
from plsc.config.schema_data import Data
from plsc.config.schema_optimizer import Optimizer
from plsc.config.schema_schedule import LrSchedule
from plsc.config.schema_using import Export, Predict
from plsc.registry import METRICS, MODELS

# PLSC 0.1 put the kind of parallelism into the name of the loss.
DIST_LOSSES = {"dist_arcface": "arcface", "dist_softmax": "softmax"}

# Pairs of keys that say the same in steps and in epochs: setting one clears the other.
EXCLUSIVE = (("train_epochs", "train_steps"), ("lr_schedule.warmup_epochs", "lr_schedule.warmup_steps"))


@dataclasses.dataclass(frozen=True)
class Model:
    """The backbone: image to feature."""

    name: str = option(
        "ResNet50", "The backbone (`plsc list models`). One of your own is given by name, from a module in `plugins`, "
        "or as an object, by Entry.set_model.", registry=MODELS,
        setter="set_model_name", attributes=("model_name",),
    )  # fmt: skip
    embedding_size: int = option(
        512, "The length of the feature.", within="[1, 65536]", setter="set_emb_size", attributes=("emb_dim",)
    )
    image_shape: list[int] = option(
        [3, 112, 112], "Channels, height and width of the images.", unit="pixels", within="[1, 16384]", length=3,
        setter="set_image_shape", attributes=("image_shape",),
    )  # fmt: skip
    data_format: str = option(
        "NCHW", "The layout inside the backbone; images are fed as NCHW in both.",
        choices=("NCHW", "NHWC"), setter="set_data_format",
    )  # fmt: skip
    dropout: float | None = option(
        None, "The share of values dropped before the last layer; null takes the net's own: 0.4 for ResNet, "
        "none for MobileFaceNet.", within="[0, 1)",
    )  # fmt: skip
    base_width: int = option(
        64, "The channels of the first layer; 64 is the published net, less gives a narrow one.",
        unit="channels", within="[1, 4096]",
    )  # fmt: skip
    options: dict = option(
        {}, "Options that the backbone has beyond these keys, as in {depth: 3}: parameters of its constructor.",
    )  # fmt: skip
    input_info: list[dict] | None = option(
        None, "The inputs of a net of your own, as in PLSC 0.2; null means an image of `image_shape` and its label.",
        setter="set_input_info", attributes=("input_info",),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The last layer and the loss."""

    num_classes: int = option(
        85742, "The number of classes; labels run from 0 to one less.", within="[2, 2147483647]",
        setter="set_class_num", attributes=("num_classes",),
    )  # fmt: skip
    loss_type: str = option(
        "arcface",
        "The loss (`plsc list losses`): arcface, cosface, sphereface, softmax, one of your own, from a module in "
        "`plugins`, or combined or any other name together with three margins. "
        "PLSC 0.1's dist_arcface and dist_softmax mean arcface and softmax with `model_parallel`; its arcface and "
        "softmax leave `model_parallel` as it is.",
        filled=True, setter="set_loss_type", attributes=("loss_type",),
    )  # fmt: skip
    margin1: float | None = option(
        None, "The factor of the angle; null takes the one of `loss_type`.", within="(0, 10]",
        setter="set_loss_type", attributes=("margin1",),
    )  # fmt: skip
    margin2: float | None = option(
        None, "The addend to the angle; null takes the one of `loss_type`.", unit="radians",
        within="[-3.1416, 3.1416]", setter="set_loss_type", attributes=("margin2", "margin"),
    )  # fmt: skip
    margin3: float | None = option(
        None, "Taken off the cosine; null takes the one of `loss_type`.", within="[-2, 2]",
        setter="set_loss_type", attributes=("margin3",),
    )  # fmt: skip
    loss_options: dict = option(
        {}, "Options that the loss has beyond the margins, as in {slope: 2.0}: parameters of its constructor.",
        setter="set_loss_type",
    )  # fmt: skip
    scale: float = option(
        64.0, "The factor of the cosines before the softmax.", within="(0, 1e30]",
        setter="set_scale", attributes=("scale",),
    )  # fmt: skip
    sample_ratio: float = option(
        1.0, "The share of the classes used in a step; below 1 it is Partial FC.", within="(0, 1]",
        setter="set_sample_ratio", attributes=("sample_ratio",),
    )  # fmt: skip
    model_parallel: bool = option(
        True, "Each rank holds a part of the classes; otherwise each holds all.",
        setter="set_model_parallel", attributes=("model_parallel",),
    )  # fmt: skip
    storage: str = option(
        "float32", "How class weights and their momentum are kept in memory; a step works on its rows in float32, and "
        "checkpoints hold float32. The half types take half the memory, cost time on CPUs and may cost accuracy "
        "(docs/performance.md). Not with an optimizer of your own.", choices=("float32", "float16", "bfloat16"),
    )  # fmt: skip
    compiled: bool = option(
        True, "On CPUs, float32 rows of a sample are worked on by two operations in C++, which are compiled at their "
        "first use on a machine (docs/design.md); the log says where that cannot be done. false takes Paddle's, which "
        "are slower and give the same up to rounding, as do several ranks in data-parallel mode.",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class MixedPrecision:
    """Half precision where it is safe; needs a GPU."""

    enabled: bool = option(False, "Train in mixed precision.", setter="set_mixed_precision", attributes=("use_fp16",))
    init_loss_scaling: float = option(
        32768.0,
        "The first factor on the loss. The default 2^15 is a power of two, so that scaling rounds nothing, and large "
        "enough for gradients of a mean over a batch not to vanish in half precision; one that is too large is halved "
        "within a few steps. PLSC 0.x began with 1, which takes 2000 steps to double once.",
        within="(0, 1e30]", setter="set_mixed_precision",
    )  # fmt: skip
    incr_every_n_steps: int = option(
        2000, "The factor grows after this many finite steps in a row.", unit="steps", within="[1, 2147483647]",
        setter="set_mixed_precision",
    )  # fmt: skip
    decr_every_n_nan_or_inf: int = option(
        2, "The factor shrinks after this many steps that were not finite.", unit="steps", within="[1, 2147483647]",
        setter="set_mixed_precision",
    )  # fmt: skip
    incr_ratio: float = option(2.0, "By how much it grows.", within="(1, 1e30]", setter="set_mixed_precision")
    decr_ratio: float = option(0.5, "By how much it shrinks.", within="(0, 1)", setter="set_mixed_precision")
    use_dynamic_loss_scaling: bool = option(
        True, "Let the factor grow and shrink; otherwise it stays.", setter="set_mixed_precision"
    )
    custom_white_list: list[str] = option(
        [], "Ops to run in half precision besides Paddle's list.", setter="set_mixed_precision"
    )
    custom_black_list: list[str] = option(
        [], "Ops to keep in full precision besides Paddle's list.", setter="set_mixed_precision"
    )


@dataclasses.dataclass(frozen=True)
class Remote:
    """Copies on other machines, see docs/remote.md: an address, or a Hadoop file system as PLSC 0.x named it."""

    save_url: str | None = option(
        None, "Where checkpoints and exported nets are copied to after train() and convert_for_prediction(): "
        "s3://bucket/dir, hdfs://host:port/dir or file:///dir.", filled=True, refuse=urls.problem,
    )  # fmt: skip
    fs_name: str | None = option(
        None, "The Hadoop file system that `fs_dir_for_save` and `fs_checkpoint_dir` are on, as in hdfs://host:port.",
        filled=True, refuse=urls.file_system_problem, setter="set_hdfs_info", attributes=("fs_name",),
    )  # fmt: skip
    fs_ugi: str | None = option(
        None, "User and password on HDFS, as user,password; never printed nor written.", filled=True, secret=True,
        per_rank="a secret is not sent around", setter="set_hdfs_info", attributes=("fs_ugi",),
    )  # fmt: skip
    fs_dir_for_save: str | None = option(
        None, "Like `save_url`, a directory on `fs_name`.", filled=True, refuse=urls.directory_problem,
        setter="set_hdfs_info", attributes=("fs_dir_for_save",),
    )  # fmt: skip
    fs_checkpoint_dir: str | None = option(
        None, "The checkpoint to start from, a directory on `fs_name`. It is copied to `checkpoint_dir` where that is "
        "set, which must not hold anything else.", filled=True, refuse=urls.directory_problem,
        setter="set_hdfs_info", attributes=("fs_checkpoint_dir",),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    # The bound is what every random generator used takes as a seed.
    seed: int | None = option(
        None, "The seed of everything random; null draws one at the start and logs it.", within="[0, 2147483647]",
        setter="set_seed",
    )  # fmt: skip
    device: str = option(
        "auto", "Where to compute; auto takes GPUs where Paddle has them.", choices=("auto", "cpu", "gpu"),
        setter="set_device",
    )  # fmt: skip
    world_size: int | None = option(
        None, "The number of ranks that this run must be launched with; another is refused. null takes any.",
        unit="ranks", within="[1, 65536]",
    )  # fmt: skip
    stall_timeout: float = option(
        600.0, "A rank that is late for a step by more than this ends the run on all ranks, which name it; so do data "
        "that a worker reads for so long (where there are several ranks, twice). 0 waits for ever.",
        unit="seconds", within="[0, 1e8]",
    )  # fmt: skip
    num_threads: int = option(
        0, "CPU threads per rank; 0 shares the cores of the machine out to its ranks.", unit="threads",
        within="[0, 1024]", per_rank="a matter of the machine",
    )  # fmt: skip
    use_onednn: bool = option(
        True, "On the CPU convolutions and PReLU go through oneDNN: faster, with the same results up to rounding, and "
        "about 0.15 GB more for each picture of 112x112 in a ResNet50's batch. false takes Paddle's plain kernels.",
    )  # fmt: skip
    plugins: list[str] = option(
        [], "Modules of yours that register models and so on: names of modules (`my_package.nets`) or paths of files "
        "(`nets.py`). They are imported, and so run, on every rank, before any other setting is looked at.",
    )  # fmt: skip
    memory_check: bool = option(
        True, "Refuse a run on CPUs that needs more memory than its machine has free, before it begins; `plsc plan` "
        "tells what it needs. false trains all the same.",
    )  # fmt: skip
    model_save_dir: str = option(
        "output", "Where checkpoints, logs and exported nets go.", filled=True, refuse=urls.local_problem,
        setter="set_model_save_dir", attributes=("model_save_dir",),
    )  # fmt: skip
    checkpoint_dir: str = option(
        "", "The checkpoint to start from, or the directory of a run, then its newest; also an address such as "
        "s3://bucket/dir, hdfs://host:port/dir, file:///dir. Empty for none.", refuse=urls.start_problem,
        setter="set_checkpoint_dir", attributes=("checkpoint_dir",),
    )  # fmt: skip
    resume: str = option(
        "never", "auto goes on from the newest checkpoint in `model_save_dir` if there is one. never refuses a "
        "`model_save_dir` that holds a run; new begins another one beside it, in `model_save_dir`/run_2, run_3 and so "
        "on.", choices=("never", "auto", "new"),
    )  # fmt: skip
    accept_new_labels: bool = option(
        False, "Go on from a checkpoint although pictures that it was trained on have other labels in the list now. "
        "Class centres stay where they are, so each label must mean the same class as before, or training starts far "
        "off. A list that is only longer needs no permission.",
    )  # fmt: skip
    init_from: str = option(
        "none", "Begin a new run with weights of `init_checkpoint`: its backbone, or also the centres of the classes "
        "that `label_map` names. The rest, momentum and steps begin anew. A run that goes on ignores it.",
        choices=("none", "backbone", "classes"),
    )  # fmt: skip
    init_checkpoint: str = option("", "The checkpoint for `init_from`, or the directory of a run.")
    label_map: str = option("", "For init_from classes: a text file, on each line old label, tab, new label.")
    save_period: int = option(
        0, "A checkpoint every so many steps, beside those at the end of each epoch and of the run; 0 for these alone.",
        unit="steps", within="[0, 1e12]",
    )  # fmt: skip
    save_async: bool = option(
        True, "Go on training while a checkpoint is written. Costs memory of the machine for a copy of what a rank "
        "saves: weights and momentum of its classes, on rank 0 the backbone too; where that is more than half of "
        "what is free, and with false, training waits.",
    )  # fmt: skip
    max_last_checkpoint_num: int = option(
        5, "How many of the newest checkpoints are kept; 0 or less keeps all.", within="[-1e12, 1e12]",
        setter="set_max_last_checkpoint_num", attributes=("max_last_checkpoint_num",),
    )  # fmt: skip
    metrics: list[str] = option(
        ["verification"], "The metrics that the verification sets are judged by, each where a set has what it needs: "
        "verification needs pairs; identification and retrieval need identities, as a folder of identities or a list "
        "of path<TAB>identity has them (docs/verification.md), or one of your own (docs/add_a_metric.md).",
        registry=METRICS, filled=True,
    )  # fmt: skip
    metric_options: dict = option(
        {}, "Options of metrics, by their names: `{retrieval: {ks: [1, 10, 100]}}`.",
    )  # fmt: skip
    best_metric: str = option(
        "", "Keep the checkpoint that was best by this metric in `model_save_dir`/best, beside the newest ones: a set "
        "and a number of one of the `metrics`, such as lfw.accuracy, lfw.tar@1e-3 or faces/.recall@1; empty for none.",
    )  # fmt: skip
    protocol: str = option("exact", "The thresholds of the 10-fold accuracy: the exact best ones, or insightface's, to "
                           "equal its figures to the digit.", choices=("exact", "insightface"))  # fmt: skip
    train_batch_size: int = option(
        128, "Images of a training step on each rank.", unit="images per rank", within="[1, 1000000]",
        setter="set_train_batch_size", attributes=("train_batch_size",),
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
    lr_reference_batch: int = option(
        512,
        "The rate used is lr * global batch / lr_reference_batch. PLSC 2.2 scaled by 512, 0.x by 1024; set it to your "
        "global batch to use `lr` as it is.",
        unit="images", within="[1, 1e12]",
    )  # fmt: skip
    momentum: float = option(0.9, "The share of the last update that is kept.", within="[0, 1)", setter="set_momentum")
    weight_decay: float = option(
        5e-4, "The factor of the L2 decay, for all weights.", within="[0, 1e30]", setter="set_weight_decay"
    )
    grad_clip_norm: float | None = option(
        None, "The largest global norm of the gradient, over all ranks; null does not clip.", within="(0, 1e30]"
    )
    log_period: int = option(
        200, "A line in the log every so many steps.", unit="steps", within="[1, 1e12]",
        setter="set_log_period", attributes=("log_period",),
    )  # fmt: skip
    test_period: int = option(
        2000, "Verification every so many steps; 0 only at the end.", unit="steps", within="[0, 1e12]",
        setter="set_test_period", attributes=("test_period",),
    )  # fmt: skip
    with_test: bool = option(True, "Verify while training.", setter="set_with_test", attributes=("with_test",))
    scalars: str = option(
        "none", "Write loss, rate and accuracies for VisualDL or TensorBoard too, in `model_save_dir`/scalars; needs "
        "the package visualdl or tensorboardX. scalars.jsonl is always written.",
        choices=("none", "visualdl", "tensorboard"),
    )  # fmt: skip
    calc_acc: bool = option(
        False, "Log the accuracy on the training batches.", setter="set_calc_acc", attributes=("calc_train_acc",)
    )
    lr_schedule: LrSchedule = section(LrSchedule, LrSchedule.__doc__)
    optimizer: Optimizer = section(Optimizer, Optimizer.__doc__)
    model: Model = section(Model, Model.__doc__)
    classifier: Classifier = section(Classifier, Classifier.__doc__)
    data: Data = section(Data, Data.__doc__)
    mixed_precision: MixedPrecision = section(MixedPrecision, MixedPrecision.__doc__)
    remote: Remote = section(Remote, Remote.__doc__)
    export: Export = section(Export, Export.__doc__)
    predict: Predict = section(Predict, Predict.__doc__)
