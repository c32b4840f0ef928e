"""Settings about the data that are left open, and are settled by looking at the data before a run begins.

`data.dataset: auto`, `classifier.num_classes: null` and `data.val_targets: null` become values of the run's own
configuration, so that all that follows, checkpoints too, knows values only. A line about each goes to ``notes``.
"""

from __future__ import annotations

from plsc.config import OPTIONS, Config
from plsc.data.directory import list_directory
from plsc.data.sources.auto import Auto, Choice
from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import is_bin

AUTO = "auto"


def choice_of(config: Config) -> Choice:
    """What `auto` takes. Raises DataError where it finds nothing, or too much."""
    section = config.data
    if "data.label_file" in config.given:  # then no folder is meant
        return Choice("list", f"data.dataset: auto takes list: data.label_file={section.label_file!r} is set")
    return Auto(section.dataset_dir, section.label_file).choose()


def settle_source(config: Config, notes: list[str]) -> None:
    """The data source, where it is to be found out. Raises DataError."""
    if config.data.dataset == AUTO:
        choice = choice_of(config)
        config.set("data.dataset", choice.name)
        notes.append(choice.line)


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
    config.set("data.val_targets", [name[: -len(".bin")] for name in found])
    if others:
        notes.append(f"data.val_targets: null passes over {', '.join(others)}: no verification set by the first byte")
    if found:
        notes.append(f"data.val_targets: null takes what is in {section.dataset_dir}: {', '.join(found)}")
    else:
        notes.append(
            f"data.val_targets: null, and {section.dataset_dir} has no verification set (*.bin): nothing is verified"
        )
