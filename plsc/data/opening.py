"""Creates the data source of the settings: a single one, or a combination of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.config.extensions import SOURCE
from plsc.data.augmentations import Augmentations
from plsc.data.balanced import BalancedOrder, GroupSize
from plsc.data.datasets import Preparation, SourceDataset
from plsc.data.image_reader import ImageReader
from plsc.data.sampler import SampleOrder
from plsc.data.several import Part, SeveralSources
from plsc.data.sources import Source
from plsc.data.sources.auto import Auto, Choice
from plsc.errors import ConfigError, DataError
from plsc.registry import SOURCES

AUTO = "auto"


def choose_source(config: Config) -> Choice:
    """Choose the source for `data.dataset: auto`. Raises DataError if none or several match."""
    section = config.data
    if "data.label_file" in config.given:  # an explicit list excludes a folder
        return Choice("list", f"data.dataset: auto takes list: data.label_file={section.label_file!r} is set")
    return Auto(section.dataset_dir, section.label_file).choose()


def open_source(config: Config, seed: int) -> Source:
    """The source of ``data``, or those of ``data.sources`` as one. Raises DataError, ConfigError."""
    if not config.data.sources:
        return _make(config, seed)
    parts = []
    for number, entry in enumerate(config.data.sources):
        part = part_config(config, number, entry)
        if part.data.dataset == AUTO:
            part.set("data.dataset", choose_source(part).name)
        parts.append(Part(part_key(number), _make(part, seed), entry.get("class_offset")))
    return SeveralSources(parts, config.classifier.num_classes)


def open_to_read(config: Config, log: Callable[[str], None], check_files: bool = True) -> Source:
    """Open and check the source of the settings outside of a run, and log what was found. Counts the classes if
    classifier.num_classes is not set. check_files: also check that image files exist. Raises DataError, ConfigError."""
    config = config.copy()
    if config.data.dataset == AUTO and not config.data.sources:
        choice = choose_source(config)
        config.set("data.dataset", choice.name)
        log(choice.line)
    if "classifier.num_classes" not in config.given and not SOURCE.chosen(config.settings).ready:
        config.set("classifier.num_classes", None)
    source = open_source(config, config.seed or 0)
    source.check(check_files)
    for note in source.notes:
        log(str(note))
    return source


def open_dataset(config: Config, log: Callable[[str], None], check_files: bool = True) -> SourceDataset:
    """The images of the settings, prepared for the model, opened by ``open_to_read``.

    The default seed is 0. Raises DataError, ConfigError.
    """
    source = open_to_read(config, log, check_files)
    num_classes, given = config.classifier.num_classes, "classifier.num_classes" in config.given
    if source.num_classes is not None and (num_classes is None or not given):
        num_classes = source.num_classes
    if num_classes is None:
        raise DataError(
            f"{source.place}: its number of classes is unknown without reading all images; set classifier.num_classes"
        )
    data = SourceDataset(source, num_classes, make_preparation(config, config.seed or 0), config.data.dataset)
    check_image_count(config, len(data), source.place)
    return data


def sample_order(config: Config, data: Any) -> SampleOrder:
    """The order of the training images by the settings.

    data: a plsc.data.datasets.Dataset; for `data.sampler: balanced` a SourceDataset. Raises DataError for the latter
    where the labels are not known, or where there are too few identities.
    """
    section = config.data
    if section.sampler == "shuffle":
        return SampleOrder(not data.sequential, window=section.shuffle_window)
    labels = data.source.known_labels()
    if labels is None:
        raise unknown_labels(f"{data.source.place} does not tell them")
    labels = np.asarray(labels)
    wrong = labels.shape != (len(data),) or labels.dtype.kind not in "iu"
    if wrong or labels.min() < 0 or labels.max() >= data.num_classes:
        raise DataError(
            f"{data.source.place}: known_labels() must give {len(data)} integers in 0..{data.num_classes - 1}, for "
            "data.sampler: balanced"
        )
    return SampleOrder(balanced=BalancedOrder(labels, GroupSize(section.identities, section.images_per_identity)))


def unknown_labels(reason: str) -> DataError:
    """The error of `data.sampler: balanced` without labels; ``reason`` says whose they are."""
    return DataError(
        f"data.sampler='balanced': needs the labels of all images before they are read, and {reason}; use a data "
        "source with known_labels (docs/add_a_data_source.md), or sampler: shuffle"
    )


def check_image_count(config: Config, found: int, where: str) -> None:
    """Raise ConfigError if data.train_image_num is not the number of images."""
    said = config.data.train_image_num
    if said is not None and said != found:
        raise ConfigError(
            f"data.train_image_num={said}: {where} has {found} images; correct it or set it to null to count them"
        )


def make_preparation(config: Config, seed: int) -> Preparation:
    """The preparation of training images by the settings. Raises ConfigError for a decoder that cannot be used."""
    section = config.data
    steps = section.augmentations
    if steps is None:
        steps = ["flip"] if section.random_flip else []
    reader = ImageReader.from_config(config)
    augmentations = Augmentations(steps, seed)
    return Preparation(reader.image_shape, augmentations, section.pixel_std, reader.resize, reader.jpeg)


def part_config(config: Config, number: int, entry: dict[str, Any]) -> Config:
    """The settings of one entry of ``data.sources``: the run's, with its own in ``data``. Raises ConfigError."""
    part = Config()
    part.update({"model": {"image_shape": config.model.image_shape}, "data": {"resize": config.data.resize}})
    own = {f"data.{key}": value for key, value in entry.items() if key not in ("class_offset", "num_classes")}
    for key, value in {**own, "classifier.num_classes": entry.get("num_classes")}.items():
        part.set(key, value, part_key(number))
    return part


def part_key(number: int) -> str:
    """The name of an entry in messages."""
    return f"data.sources[{number}]"


def _make(config: Config, seed: int) -> Source:
    return SOURCES.find(config.data.dataset)(**SOURCE.arguments(config.settings, seed=seed))
