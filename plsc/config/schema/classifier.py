"""The section `classifier`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option

AUTO, PADDLE, PLSC = "auto", "paddle", "plsc"  # kernels
# PLSC 0.1 put the kind of parallelism into the name of the loss.
DIST_LOSSES = {"dist_arcface": "arcface", "dist_softmax": "softmax"}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The last layer and the loss."""

    num_classes: int | None = option(
        85742, "The number of classes; labels run from 0 to one less. null counts them in the data: the folders of a "
        "folder of identities, of a list the largest label and one.", within="[2, 2147483647]",
        setter="set_class_num", attributes=("num_classes",),
    )  # fmt: skip
    loss_type: str = option(
        "arcface",
        "The loss (`plsc list losses`): arcface, cosface, sphereface, softmax, adaface, magface, curricularface, "
        "elastic_arcface, elastic_cosface, uniface, sphereface2, your own from a module in `plugins`, or "
        "combined or any other name together with three margins. "
        "PLSC 0.1's dist_arcface and dist_softmax mean arcface and softmax with `model_parallel`; its arcface and "
        "softmax leave `model_parallel` as it is.",
        filled=True, setter="set_loss_type", attributes=("loss_type",),
    )  # fmt: skip
    margin1: float | None = option(
        None, "The factor of the angle; null uses that of `loss_type`.", within="(0, 10]",
        setter="set_loss_type", attributes=("margin1",),
    )  # fmt: skip
    margin2: float | None = option(
        None, "The margin added to the angle; null uses that of `loss_type`.", unit="radians",
        within="[-3.1416, 3.1416]", setter="set_loss_type", attributes=("margin2", "margin"),
    )  # fmt: skip
    margin3: float | None = option(
        None, "The margin subtracted from the cosine; null uses that of `loss_type`.", within="[-2, 2]",
        setter="set_loss_type", attributes=("margin3",),
    )  # fmt: skip
    loss_options: dict = option(
        {}, "Further options of the loss, as in {slope: 2.0}: parameters of its constructor.",
        setter="set_loss_type",
    )  # fmt: skip
    scale: float = option(
        64.0, "The factor of the cosines before the softmax.", within="(0, 1e30]",
        setter="set_scale", attributes=("scale",),
    )  # fmt: skip
    label_smoothing: float = option(
        0.0, "The part of the target probability that all classes of the step share equally, the target class "
        "included; with sampling these are the sampled ones. Not with uniface and sphereface2.", within="[0, 1)",
    )  # fmt: skip
    class_weights: str | None = option(
        None, "A text file with a number above 0 for each class, one per line in the order of the labels: the factor "
        "of the cross entropy of its images. The loss stays the mean over the batch, so factors of mean 1 keep its "
        "size. null: all 1.", filled=True,
    )  # fmt: skip
    sub_centres: int = option(
        1, "The centres of each class (sub-centre ArcFace; its authors use 3). The cosine of a class is that with its "
        "nearest centre, so images with wrong labels gather at other centres. The memory of the classes grows by this "
        "factor; `plsc merge-centres` keeps one centre. Not with softmax.", within="[1, 16]",
    )  # fmt: skip
    filter_above: float | None = option(
        None, "Other classes whose cosine with a feature is larger do not count for it in this step: their cosine "
        "becomes the constant 0. Such a class may be the same identity under another label. null: all count.",
        within="(0, 1)",
    )  # fmt: skip
    sample_ratio: float = option(
        1.0, "The fraction of the classes used in a step; below 1 this is Partial FC.", within="(0, 1]",
        setter="set_sample_ratio", attributes=("sample_ratio",),
    )  # fmt: skip
    hard_negative_share: float = option(
        0.0, "The largest part of a sample that are hard negatives: the classes nearest to the features of the batch's "
        "classes when these were last in a batch (docs/train.md). The rest is drawn uniformly.", within="[0, 1]",
    )  # fmt: skip
    model_parallel: bool = option(
        True, "true: each rank holds a part of the classes; false: each rank holds all.",
        setter="set_model_parallel", attributes=("model_parallel",),
    )  # fmt: skip
    kernels: str = option(
        AUTO, "What draws the sample and computes the loss on a GPU: paddle, by its kernels class_center_sample and "
        "margin_cross_entropy; plsc, by PLSC's own, which draw the samples of a CPU, work on blocks of classes, need "
        "less memory and have no limit of 2^31 logits. auto is paddle on GPUs where these can do it, and plsc "
        "otherwise and on CPUs. None of it was measured on a GPU: `plsc doctor` times both.",
        choices=(AUTO, PADDLE, PLSC),
    )  # fmt: skip
    storage: str = option(
        "float32", "The type of class weights and their momentum in memory; a step computes in float32, and "
        "checkpoints hold float32. The 16-bit types use half the memory, are slower on CPUs and may reduce accuracy "
        "(docs/performance.md). Not with your own optimizer.", choices=("float32", "float16", "bfloat16"),
    )  # fmt: skip
    compiled: bool = option(
        True, "On CPUs, process sampled float32 rows with operations in C++, which are compiled at their first "
        "use on a machine (docs/design.md); the log says where that fails. false uses Paddle's operations, which are "
        "slower and give the same results up to rounding; so do several ranks in data-parallel mode.",
    )  # fmt: skip
