"""Rules over several keys: contradictions, and keys without effect in a combination."""

from __future__ import annotations

import math
from collections.abc import Iterable

from plsc.config.extensions import EXTENSIONS, OPTIMIZER, SOURCE, class_optimizer_of, value_of
from plsc.config.format_value import format_value
from plsc.config.keys import OPTIONS
from plsc.config.losses import make_loss
from plsc.config.schema import Settings
from plsc.config.schema.classifier import PADDLE
from plsc.config.stages import ALL, HEAD, frozen_with_factor
from plsc.config.urls import is_url
from plsc.errors import ConfigError
from plsc.signatures import accepted

_OF_BACKBONE = ("ema.decay", "ema.warmup", "distill.model", "lr_layer_decay", "model.recompute", "model.dropout")
_TEST_KEYS = ("test_period", "test_batch_size", "data.val_targets", "metrics", "metric_options")
MAX_IMAGE_VALUES = 2**28  # a gigabyte in float32


def check_loss(settings: Settings) -> None:
    """The loss exists and accepts the margins and options, and what is set beside them. Raises ConfigError."""
    section = settings.classifier
    loss = make_loss(section)
    normalised = loss.normalised
    if loss.pairwise and section.label_smoothing > 0.0:
        raise ConfigError(
            f"classifier.label_smoothing={section.label_smoothing}: is a part of the target distribution, and "
            f"classifier.loss_type={section.loss_type!r} judges each pair of a feature and a class on its own, without "
            "a distribution over the classes; set it to 0, or choose another loss"
        )
    if not normalised and section.sub_centres > 1:
        raise ConfigError(
            f"classifier.sub_centres={section.sub_centres}: the nearest centre is that of the largest cosine, and "
            f"classifier.loss_type={section.loss_type!r} has dot products; set it to 1, or choose another loss"
        )
    if not normalised and section.filter_above is not None:
        raise ConfigError(
            f"classifier.filter_above={section.filter_above}: is a limit of cosines, and classifier.loss_type="
            f"{section.loss_type!r} has dot products; set it to null, or choose another loss"
        )
    if section.hard_negative_share > 0.0 and section.sample_ratio == 1.0:
        raise ConfigError(
            f"classifier.hard_negative_share={section.hard_negative_share}: is a part of the sample, and "
            "classifier.sample_ratio=1.0 uses all classes; set it to 0, or sample_ratio below 1"
        )


def check_precision(settings: Settings) -> None:
    """An operator cannot be in half and in full precision. Raises ConfigError."""
    lists = settings.mixed_precision
    both = sorted(set(lists.custom_white_list) & set(lists.custom_black_list))
    if both:
        raise ConfigError(
            f"mixed_precision.custom_white_list: {', '.join(both)} is in custom_black_list as well; keep it in one"
        )


def check_run(settings: Settings, world_size: int, device: str | None) -> None:
    """Check the settings when a run starts. Raises ConfigError."""
    _check_length(settings)
    _check_stages(settings)
    _check_ranks(settings, world_size)
    _check_device(settings, device)
    _check_groups(settings, world_size)
    _check_inputs(settings)
    _check_initial(settings)
    _check_centres(settings)
    _check_remote(settings)


def _check_length(settings: Settings) -> None:
    if settings.train_epochs is None and settings.train_steps is None:  # both: Config lets the one clear the other
        raise ConfigError("train_epochs=None, train_steps=None: set exactly one of the two")


def _check_stages(settings: Settings) -> None:
    """A frozen stage has no learning rate. Raises ConfigError."""
    both = frozen_with_factor(settings.model.freeze, settings.lr_factors)
    if both:
        raise ConfigError(
            f"lr_factors={format_value(settings.lr_factors)}: {', '.join(both)} is frozen by model.freeze="
            f"{format_value(settings.model.freeze)}; remove it from one of the two"
        )


def _check_ranks(settings: Settings, world_size: int) -> None:
    if settings.world_size not in (None, world_size):
        raise ConfigError(
            f"world_size={settings.world_size}: the run was launched with {world_size} ranks; "
            "launch as many as world_size says, or change it"
        )
    num_classes = settings.classifier.num_classes
    if num_classes is None:  # they will be counted, and this asked again
        return
    if settings.classifier.model_parallel and not splits(num_classes, world_size):
        largest = max(ranks for ranks in range(1, world_size) if splits(num_classes, ranks))
        raise ConfigError(
            f"classifier.num_classes={num_classes}: {world_size} ranks of {-(-num_classes // world_size)} classes each "
            f"leave the last one without any; launch {largest}, or set classifier.model_parallel: false"
        )


def splits(num_classes: int, world_size: int) -> bool:
    """True when every rank gets a class: ceil(C / N) for each and the remainder for the last (PLSC's rule)."""
    num_local = -(-num_classes // world_size)
    return num_local * (world_size - 1) < num_classes


def _check_device(settings: Settings, device: str | None) -> None:
    used = device if settings.device == "auto" else settings.device
    if settings.device != "auto" and device is not None and device != settings.device:
        raise ConfigError(f"device={settings.device!r}: this run computes on {device}; set device: {device} or auto")
    if settings.mixed_precision.enabled and used == "cpu" and settings.device != "cpu":
        raise ConfigError(
            "mixed_precision.enabled=True: is for GPUs, and device='auto' found none; set it to false, or device: cpu "
            f"to compute in {settings.mixed_precision.dtype} there, which is slower than float32 (docs/gpu.md)"
        )
    if settings.classifier.kernels == PADDLE and used == "cpu":
        raise ConfigError(
            "classifier.kernels='paddle': Paddle's kernels exist for GPUs only, and this run computes on the cpu; set "
            "auto or plsc"
        )


def _check_groups(settings: Settings, world_size: int) -> None:
    data, batch = settings.data, settings.step_batch_size * world_size
    group = data.identities * data.images_per_identity
    if data.sampler == "balanced" and batch % group:
        raise ConfigError(
            f"data.identities={data.identities}: groups of {data.identities} identities x {data.images_per_identity} "
            f"images (data.images_per_identity) = {group} do not divide the global batch of {batch} "
            f"({settings.step_batch_keys} on {world_size} rank(s)); change one of the three"
        )


def _check_initial(settings: Settings) -> None:
    kind = settings.init_from
    if kind != "none" and not settings.init_checkpoint:
        raise ConfigError(f"init_from={kind!r}: init_checkpoint is empty; set it to a checkpoint or a run")
    if kind != "none" and settings.checkpoint_dir:
        raise ConfigError(
            f"init_from={kind!r}: starts a new run and checkpoint_dir={settings.checkpoint_dir!r} continues an old "
            "one; remove one of them"
        )


def _check_centres(settings: Settings) -> None:
    """Centres that a teacher gives and that stay have no other beginning, and no learning rate. Raises ConfigError."""
    centres = settings.distill.centres
    if not centres:
        return
    others = (
        (settings.init_from == "classes", "init_from", "brings centres as well; set it to backbone or none"),
        (settings.new_classes != "random", "new_classes", "every class has its teacher's centre; set it to random"),
        (HEAD in settings.lr_factors, "lr_factors", f"{HEAD}, the class centres, is not trained; remove it"),
        (ALL in settings.model.freeze, "model.freeze", "leaves nothing to train; remove one of the two"),
    )  # fmt: skip
    for found, key, text in others:
        if found:
            raise ConfigError(f"distill.centres={centres!r}, {key}={format_value(value_of(settings, key))}: {text}")


def _check_inputs(settings: Settings) -> None:
    shape = settings.model.image_shape
    if math.prod(shape) > MAX_IMAGE_VALUES:
        raise ConfigError(
            f"model.image_shape={shape}: an image of {math.prod(shape):,} values; at most {MAX_IMAGE_VALUES:,}"
        )
    for entry in settings.model.input_info or []:
        if entry["name"] == "image" and entry["shape"][1:] != shape:
            raise ConfigError(
                f"model.image_shape={shape}: model.input_info has {entry['shape'][1:]} for image; set both to the same"
            )


def _check_remote(settings: Settings) -> None:
    remote = settings.remote
    for key in ("fs_dir_for_save", "fs_checkpoint_dir"):
        if getattr(remote, key) is not None and remote.fs_name is None:
            raise ConfigError(
                f"remote.{key}={format_value(getattr(remote, key))}: set remote.fs_name, on which it lies"
            )
    if remote.fs_dir_for_save is not None and remote.save_url is not None:
        raise ConfigError(
            f"remote.fs_dir_for_save={format_value(remote.fs_dir_for_save)}, "
            f"remote.save_url={format_value(remote.save_url)}: set only one of the two"
        )
    if remote.upload != "end" and remote.fs_dir_for_save is None and remote.save_url is None:
        raise ConfigError(f"remote.upload={format_value(remote.upload)}: set remote.save_url, the address to copy to")
    if remote.fs_checkpoint_dir is not None and is_url(settings.checkpoint_dir):
        raise ConfigError(
            f"remote.fs_checkpoint_dir={format_value(remote.fs_checkpoint_dir)}, checkpoint_dir="
            f"{format_value(settings.checkpoint_dir)}: two places to start from; set only one, or make checkpoint_dir "
            "the directory of this machine to copy to"
        )


def without_effect(settings: Settings) -> list[str]:
    """A line for every key that was changed from its default but has no effect in this combination."""
    lines = []
    chosen = [(f"{one.key}: {value_of(settings, one.key)}", True, one.not_taken(settings)) for one in EXTENSIONS]
    for reason, idle, keys in [*chosen, *_idle_keys(settings)]:
        lines += [f"{text}: has no effect with {reason}" for text in changed(settings, keys)] if idle else []
    return lines


def changed(settings: Settings, keys: Iterable[str]) -> list[str]:
    """ "key=value" for each of the keys whose value is not the default."""
    values = {key: value_of(settings, key) for key in keys}
    return [
        f"{key}={OPTIONS[key].format_value(value)}" for key, value in values.items() if value != OPTIONS[key].default
    ]


def _idle_keys(settings: Settings) -> list[tuple[str, bool, tuple[str, ...]]]:
    """(reason, whether it holds, the keys that are then idle)."""
    precision, data = settings.mixed_precision, settings.data
    centres = bool(settings.distill.centres)
    scaling = tuple(
        f"mixed_precision.{name}"
        for name in ("incr_every_n_steps", "decr_every_n_nan_or_inf", "incr_ratio", "decr_ratio")
    )
    scaled = precision.enabled and precision.dtype == "float16"
    all_scaling = (*scaling, "mixed_precision.init_loss_scaling", "mixed_precision.use_dynamic_loss_scaling")
    half = tuple(key for key in OPTIONS if key.startswith("mixed_precision.") and not key.endswith(".enabled"))
    remote = settings.remote
    on_fs = remote.fs_dir_for_save is not None or remote.fs_checkpoint_dir is not None
    on_hdfs = on_fs or any((url or "").startswith("hdfs://") for url in (remote.save_url, settings.checkpoint_dir))
    optimizers = [one.chosen(settings) for one in (OPTIMIZER, class_optimizer_of(settings))]
    steady = not any(accepted(one, ("momentum",)) for one in optimizers)
    return [
        (f"optimizer.name: {settings.optimizer.name}", steady, ("momentum",)),
        ("class_optimizer.name: null", settings.class_optimizer.name is None, ("class_optimizer.options",)),
        ("classifier.sample_ratio: 1.0", settings.classifier.sample_ratio == 1.0, ("class_optimizer.sparse",)),
        ("model.freeze: [all]", ALL in settings.model.freeze, _OF_BACKBONE),
        ("ema.decay: null", settings.ema.decay is None, ("ema.warmup",)),
        ("with_test: false", not settings.with_test, _TEST_KEYS),
        ("init_from: none", settings.init_from == "none", ("init_checkpoint", "new_classes")),
        (f"init_from: {settings.init_from}", not (settings.init_from == "classes" or centres), ("label_map",)),
        ("distill.centres", centres, ("class_optimizer.name", "class_optimizer.sparse", "classifier.compiled")),
        ("mixed_precision.enabled: false", not precision.enabled, half),
        (f"mixed_precision.dtype: {precision.dtype}", precision.enabled and not scaled, all_scaling),
        (
            "mixed_precision.use_dynamic_loss_scaling: false",
            scaled and not precision.use_dynamic_loss_scaling,
            scaling,
        ),
        (
            f"classifier.loss_type: {settings.classifier.loss_type}",
            not make_loss(settings.classifier).normalised,
            ("classifier.scale",),
        ),
        ("distill.model empty", not settings.distill.model, ("distill.weight",)),
        ("data.sources", bool(data.sources), ("data.dataset", "data.label_file", "data.options")),
        (f"data.dataset: {data.dataset}", SOURCE.chosen(settings).ready, ("data.random_flip", "data.augmentations")),
        ("data.sampler: balanced", data.sampler == "balanced", ("data.shuffle_window",)),
        (f"data.sampler: {data.sampler}", data.sampler != "balanced", ("data.identities", "data.images_per_identity")),
        ("data.augmentations", data.augmentations is not None, ("data.random_flip",)),
        ("fs_dir_for_save and fs_checkpoint_dir null", not on_fs, ("remote.fs_name",)),
        ("no directory on HDFS", not on_hdfs, ("remote.fs_ugi",)),
    ]
