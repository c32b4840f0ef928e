"""Settings about the data that are left open, and are settled by looking at the data before a run begins.

`data.dataset: auto`, `classifier.num_classes: null` and `data.val_targets: null` become values of the run's own
configuration, so that all that follows, checkpoints too, knows values only. A line about each goes to ``notes``.
"""

from __future__ import annotations

from plsc.config import OPTIONS, Config
from plsc.config.user_objects import UserObjects
from plsc.data.directory import list_directory
from plsc.data.opening import AUTO, choose_source, open_source, part_config, part_key
from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import is_bin


def settle_source(config: Config, notes: list[str]) -> None:
    """The data source, where it is to be found out. Raises DataError."""
    if config.data.sources:
        _settle_parts(config, notes)
    elif config.data.dataset == AUTO:
        choice = choose_source(config)
        config.set("data.dataset", choice.name)
        notes.append(choice.line)


def _settle_parts(config: Config, notes: list[str]) -> None:
    """The same for each entry of ``data.sources``."""
    entries = []
    for number, entry in enumerate(config.data.sources):
        part = part_config(config, number, entry)
        if part.data.dataset == AUTO:
            choice = choose_source(part)
            entry = {**entry, "dataset": choice.name}
            notes.append(f"{part_key(number)}: {choice.line}")
        entries.append(entry)
    config.set("data.sources", entries)


def settle_classes(config: Config, counted: int | None, place: str, notes: list[str]) -> None:
    """The number of classes, where it is to be ``counted`` in the data; None for a source that does not know it.

    Raises DataError.
    """
    if config.classifier.num_classes is not None:
        return
    what = "classifier.num_classes: null counts the classes"
    if counted is None:
        raise DataError(f"{what}, and {place} does not tell them without reading all images; set the number")
    try:
        number = OPTIONS["classifier.num_classes"].check(counted)
    except ConfigError:
        raise DataError(f"{what}, and {place} has {counted!r:.40}; a classifier needs at least 2") from None
    config.set("classifier.num_classes", number)
    notes.append(f"classifier.num_classes: null: {place} has {number:,} classes")


def with_classes(config: Config, user_objects: UserObjects) -> Config:
    """The settings with the number of classes that a run would count in its data, for use outside of a run.

    Raises ConfigError if they cannot be counted here.
    """
    if config.classifier.num_classes is not None:
        return config
    config = config.copy()
    try:
        if user_objects.train_dataset is not None or user_objects.train_reader is not None:
            settle_classes(config, None, "training data of your own", [])
        settle_source(config, [])
        source = open_source(config, seed=0)
        settle_classes(config, source.num_classes, source.place, [])
    except DataError as error:
        raise ConfigError(f"classifier.num_classes=None: cannot be counted here: {error}; or set the number") from None
    return config


def settle_targets(config: Config, notes: list[str]) -> None:
    """The verification sets, where those are to be taken that are there; without one the run does not verify."""
    section = config.data
    if section.val_targets is not None:
        return
    try:
        directory = list_directory(section.dataset_dir)
    except DataError:
        found, others = [], []
    else:
        bins = [name for name in directory.files if name.endswith(".bin") and name != ".bin"]
        found = [name for name in bins if is_bin(f"{directory.path}/{name}")]
        others = [name for name in bins if name not in found]
    if found:
        config.set("data.val_targets", [name[: -len(".bin")] for name in found])
    if others:
        notes.append(f"data.val_targets: null passes over {', '.join(others)}: no verification set by the first byte")
    if found:
        notes.append(f"data.val_targets: null takes what is in {section.dataset_dir}: {', '.join(found)}")
    else:
        notes.append(
            f"data.val_targets: null, and {section.dataset_dir} has no verification set (*.bin): nothing is verified"
        )
