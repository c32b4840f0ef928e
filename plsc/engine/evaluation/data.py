"""The data of a run, from the configuration and the user's own objects."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.config.user_objects import UserObjects, qualified_name
from plsc.data import (
    ImageReader,
    SourceDataset,
    UserDataset,
    UserReader,
    unsupported_channels,
)
from plsc.data.opening import check_image_count, make_preparation, open_source, sample_order, unknown_labels
from plsc.data.sample_agreement import require_equal_samples, sample_fingerprint
from plsc.data.workers import call_in_fork
from plsc.engine.evaluation import left_open
from plsc.engine.evaluation.best import parse_best_metric
from plsc.engine.program.inputs import input_names
from plsc.engine.run.start import Run
from plsc.errors import ConfigError, DataError, PlscError, reason_of
from plsc.evaluation.bin_file import PairSet, find_targets
from plsc.evaluation.identity_sets import AnySet, load_set
from plsc.evaluation.metric import PAIRS, make_metrics
from plsc.evaluation.pair_sets import ImageFiles, image_location
from plsc.evaluation.verification import FOLDS
from plsc.files import class_names
from plsc.parallel.environment import Environment

Records = dict[str, dict[str, Any]]  # by what they are records of


def check_training_data(
    config: Config, user_objects: UserObjects, env: Environment, notes: list[str] | None = None
) -> Records:
    """Check list, images and verification sets before anything is written. Raises DataError, ConfigError.

    Returns a record of each, to be compared with those of other ranks and of a checkpoint (plsc.data.record). What
    ``config`` leaves open about the data is set in it (plsc.engine.evaluation.left_open), with a line in ``notes``.
    """
    notes = [] if notes is None else notes
    if config.with_test and user_objects.test_dataset is None:
        left_open.settle_targets(config, notes)
    if config.best_metric:
        parse_best_metric(config, user_objects)
    if config.with_test and user_objects.test_dataset is None and not config.data.val_targets:
        config.set("with_test", False)
    if user_objects.train_dataset is not None or user_objects.train_reader is not None:
        left_open.settle_classes(config, None, "training data of your own (train_dataset, train_reader)", notes)
        if config.data.sampler == "balanced":
            raise unknown_labels("training data of your own (train_dataset, train_reader) do not tell them")
        record = _user_data_record(config, user_objects)
    else:
        left_open.settle_source(config, notes)
        record = _check_source(config, env, notes)
    input_names(config)
    return {"training": record, **(check_verification(config, user_objects) if config.with_test else {})}


def _check_source(config: Config, env: Environment, notes: list[str]) -> dict[str, Any]:
    """Check the data source; its files once on each machine."""
    counts = config.classifier.num_classes is None
    data = _open_source(config, 0 if config.seed is None else config.seed, env.local_rank == 0, notes)
    if counts:
        config.check(env.world_size, env.device)  # whether so many ranks can share the classes
    check_global_batch(config, len(data), env)
    _call_source(config, lambda: sample_order(config, data))
    record = _call_source(config, data.record)
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"data.dataset={config.data.dataset!r}: its record is not plain JSON: {error}") from None
    return record


def _open_source(config: Config, seed: int, check_files: bool, notes: list[str]) -> SourceDataset:
    """The data source that ``data.dataset`` names, checked. Raises DataError, ConfigError."""
    source = _call_source(config, lambda: open_source(config, seed))
    reader = ImageReader.from_config(config)
    if not source.ready:
        require_image_input(config)
        if config.data.resize != "refuse":
            notes.append(f"data: {reader.resize_note()}")
    _call_source(config, lambda: source.check(check_files))
    left_open.settle_classes(config, source.num_classes, source.place, notes)
    if source.class_names:  # now, not at the first save
        _call_source(config, lambda: class_names.to_bytes(source.class_names, config.classifier.num_classes))
    notes += _call_source(config, lambda: [str(note) for note in source.notes])
    data = SourceDataset(source, config.classifier.num_classes, make_preparation(config, seed), config.data.dataset)
    check_image_count(config, len(data), source.place)
    return data


def _call_source(config: Config, work: Callable[[], Any]) -> Any:
    """Call ``work()``; an exception of a user's source becomes a DataError of one line."""
    try:
        return work()
    except PlscError:
        raise
    except Exception as error:
        raise DataError(f"data.dataset={config.data.dataset!r}: raised {reason_of(error)}") from error


def _user_data_record(config: Config, user_objects: UserObjects) -> dict[str, Any]:
    """The record of a user's data set or reader."""
    section, classes = config.data, config.classifier.num_classes
    if user_objects.train_dataset is not None:
        number = _length(user_objects.train_dataset)
        return {"kind": "train_dataset", "type": qualified_name(user_objects.train_dataset), "images": number,
                "num_classes": classes}  # fmt: skip
    return {
        "kind": "train_reader",
        "type": qualified_name(user_objects.train_reader),
        "images": section.train_image_num,
        "num_classes": classes,
    }


def _length(dataset) -> int | None:
    try:
        return len(dataset)
    except Exception:  # reported when the data set is used
        return None


def check_verification(config: Config, user_objects: UserObjects) -> Records:
    """Is there what the metrics are made from? Returns a record of each set. Raises DataError, ConfigError.

    Where ``data.val_targets`` is null those that are there are taken, and set in ``config``; there must be one.
    """
    kinds = {metric.needs for metric in make_metrics(config)}
    if user_objects.test_dataset is not None:
        count = number_of_samples(user_objects.test_dataset, PAIRS in kinds)
        kind = qualified_name(user_objects.test_dataset)
        return {"test_dataset": {"kind": "test_dataset", "type": kind, "images": count}}
    require_image_input(config)
    left_open.settle_targets(config, notes := [])
    if notes and not config.data.val_targets:
        raise DataError(f"{notes[-1]}; name sets in data.val_targets, or correct data.dataset_dir")
    read, records = ImageReader.from_config(config), {}
    for name, path in zip(config.data.val_targets, verification_files(config)):
        found = load_set(path, name, kinds)
        _check_pairs(path, found)
        read(found.images[0], image_location(found, 0))
        records[name] = _record(found)
    return records


def _check_pairs(path: str | os.PathLike[str], found: AnySet) -> None:
    """Raise DataError where a set of pairs cannot be evaluated."""
    if isinstance(found, PairSet) and (len(found.issame) < FOLDS or found.issame.all() or not found.issame.any()):
        raise DataError(
            f"{path}: has {int(found.issame.sum())} same and {int((~found.issame).sum())} different pairs; it "
            f"needs both kinds, and a pair for each of {FOLDS} folds"
        )


def _record(found: AnySet) -> dict[str, Any]:
    """A digest of a set: which pairs are the same, or the identities, and the images, of files their names."""
    labels = found.issame if isinstance(found, PairSet) else found.identities
    digest, images = zlib.crc32(labels.tobytes()), found.images
    for index in range(len(images)):
        if isinstance(images, ImageFiles):
            image = os.fsencode(images.name(index))
        else:
            image = images[index]
        digest = zlib.crc32(np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image, digest)
    kind = "pairs" if isinstance(found, PairSet) else "identities"
    return {"kind": kind, "images": len(found.images), "digest": f"{digest:08x}"}


def require_image_input(config: Config) -> None:
    """Raise ConfigError where the model needs channels that no image has."""
    reason = unsupported_channels(config.model.image_shape[0])
    if reason:
        raise ConfigError(f"model.image_shape={list(config.model.image_shape)}: {reason}")


def number_of_samples(test_dataset, pairs: bool = True) -> int:
    """How many a user's ``test_dataset`` has. Raises DataError where that is none, or not pairs enough where a metric
    needs ``pairs``."""
    try:
        count = len(test_dataset)
    except Exception as error:  # paddle.io.Dataset has a __len__ that only raises
        raise DataError(f"test_dataset: {type(test_dataset).__name__} has no usable __len__: {error}") from error
    if pairs and (count < 2 * FOLDS or count % 2):
        raise DataError(
            f"test_dataset: has {count} samples; it needs an even number of at least {2 * FOLDS}, a pair for each of "
            f"{FOLDS} folds"
        )
    if not count:
        raise DataError("test_dataset: has no samples")
    return count


def verification_files(config: Config, names: Sequence[str] | None = None) -> list:
    """The paths of the verification sets, by default of all. Raises DataError that names what is missing and what to
    do."""
    try:
        return find_targets(config.data.dataset_dir, list(config.data.val_targets if names is None else names))
    except DataError as error:
        raise DataError(f"{error}; set data.val_targets to existing sets, or with_test: false") from None


def make_training_data(
    config: Config, user_objects: UserObjects, seed: int, log: Callable[[str], None] = lambda text: None
):
    """The data set that the loader reads; ``log`` gets lines about slow checks. Raises DataError, ConfigError."""
    section, num_classes = config.data, config.classifier.num_classes
    shape = tuple(config.model.image_shape)
    if user_objects.train_reader is not None:
        return UserReader(user_objects.train_reader, num_classes, shape, section.train_image_num, seed, log)
    if user_objects.train_dataset is None:
        return _open_source(config, seed, check_files=False, notes=[])  # logged by the check
    data = UserDataset(user_objects.train_dataset, num_classes, shape, seed)
    check_image_count(config, len(data), "the training data")
    return data


def compare_samples(run: Run, data) -> None:
    """Raise DataError on every rank where the ranks' own data sets or readers differ. Every rank calls it."""
    if run.env.world_size == 1 or not isinstance(data, (UserDataset, UserReader)):
        return

    # in a process of its own where workers will be forked: users' code may start threads
    def fingerprint() -> dict[str, Any]:
        return sample_fingerprint(data)

    own = run.group.agree((lambda: call_in_fork(fingerprint)) if run.config.data.num_workers else fingerprint)
    require_equal_samples(data, run.group.all_gather(own), run.log.info)


def check_global_batch(config: Config, found: int, env: Environment) -> None:
    """Raise DataError where the global batch is larger than the data."""
    batch = config.step_batch_size * env.world_size
    if batch > found:
        raise DataError(
            f"{config.step_batch_keys} on {env.world_size} rank(s) makes a global batch of {batch}, "
            f"more than the {found} training images: lower it to at most {max(1, found // env.world_size)}"
        )
