"""Settings that name a registered class or function, such as a model, and the arguments that its signature accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plsc.config.format_value import format_value
from plsc.config.schema import Settings
from plsc.errors import ConfigError
from plsc.registry import MODELS, OPTIMIZERS, SCHEDULES, SOURCES, Registry
from plsc.signatures import accepted, problem_with_options, select_arguments


@dataclass(frozen=True)
class Extension:
    """A setting whose value is a name in a registry.

    key: the setting. settings: {name of a parameter: the setting passed to it}. by_place: the number of positional
    arguments. idle: the settings to report where they were changed and are not accepted.
    """

    registry: Registry
    key: str
    settings: Mapping[str, str]
    by_place: int = 0
    idle: Mapping[str, str] | None = None

    @property
    def options_key(self) -> str:
        """The setting that holds the options."""
        return f"{self.key.rpartition('.')[0]}.options"

    def chosen(self, settings: Settings) -> Any:
        """The class or function that the setting names. Raises ConfigError for an unknown name."""
        return self.registry.find(value_of(settings, self.key))

    def check(self, settings: Settings) -> None:
        """Raise ConfigError for options that the chosen class or function does not accept."""
        options, chosen = value_of(settings, self.options_key), self.chosen(settings)
        problem = problem_with_options(chosen, options, self.settings, self.by_place)
        if problem:
            name = value_of(settings, self.key)
            raise ConfigError(f"{self.options_key}={format_value(options)}: {self.registry.kind} {name!r}: {problem}")

    def arguments(self, settings: Settings, **known: Any) -> dict[str, Any]:
        """The keyword arguments of the chosen class or function: the accepted settings and its options.

        ``known`` replaces settings. Raises ConfigError for options that are not accepted.
        """
        self.check(settings)
        values = {name: known.get(name, value_of(settings, key)) for name, key in self.settings.items()}
        return {
            **select_arguments(self.chosen(settings), values, self.by_place),
            **value_of(settings, self.options_key),
        }

    def not_taken(self, settings: Settings) -> tuple[str, ...]:
        """The settings that have no effect with the chosen class or function."""
        idle = self.idle or {}
        names = accepted(self.chosen(settings), idle.values(), self.by_place)
        return tuple(key for key, name in idle.items() if name not in names)


def value_of(settings: Settings, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


MODEL = Extension(
    MODELS,
    "model.name",
    {name: f"model.{name}"
     for name in ("name", "embedding_size", "image_shape", "data_format", "dropout", "base_width")},
    # the other three also configure the program around the model
    idle={f"model.{name}": name for name in ("data_format", "dropout", "base_width")},
)  # fmt: skip
SOURCE = Extension(
    SOURCES,
    "data.dataset",
    {"dataset_dir": "data.dataset_dir", "label_file": "data.label_file", "train_image_num": "data.train_image_num",
     "num_classes": "classifier.num_classes", "image_shape": "model.image_shape", "resize": "data.resize",
     "seed": "seed"},
    idle={"data.label_file": "label_file"},
)  # fmt: skip
_SCHEDULE_KEYS = ("boundaries", "decay_factor", "power", "end_lr")
SCHEDULE = Extension(
    SCHEDULES,
    "lr_schedule.kind",
    {"base_lr": "lr", "total_steps": "train_steps", "warmup_steps": "lr_schedule.warmup_steps",
     **{name: f"lr_schedule.{name}" for name in _SCHEDULE_KEYS}},
    by_place=1,
    idle={"lr_schedule.unit": "boundaries", **{f"lr_schedule.{name}": name for name in _SCHEDULE_KEYS}},
)  # fmt: skip
OPTIMIZER = Extension(OPTIMIZERS, "optimizer.name", {"momentum": "momentum"})
CLASS_OPTIMIZER = Extension(OPTIMIZERS, "class_optimizer.name", {"momentum": "momentum"})
EXTENSIONS = (MODEL, SOURCE, SCHEDULE, OPTIMIZER)


def class_optimizer_of(settings: Settings) -> Extension:
    """The extension that names the optimizer of the class centres."""
    return OPTIMIZER if settings.class_optimizer.name is None else CLASS_OPTIMIZER


def check_optimizers(settings: Settings) -> None:
    """Raise ConfigError for wrong options, and for an optimizer that cannot update class centres."""
    OPTIMIZER.check(settings)
    of_classes = class_optimizer_of(settings)
    of_classes.check(settings)
    if not of_classes.chosen(settings).for_rows and not settings.distill.centres:
        raise ConfigError(
            f"{of_classes.key}={value_of(settings, of_classes.key)!r}: reads the whole parameter, and class centres "
            "are updated row by row; set class_optimizer.name: momentum or adamw"
        )
