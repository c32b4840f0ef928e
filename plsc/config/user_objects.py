"""Objects that a user passes to Entry: a model, an optimizer, data sets, attributes of weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from plsc.config import OPTIONS, Config
from plsc.config.extensions import MODEL, SCHEDULE, SOURCE, check_optimizers
from plsc.config.rules import changed
from plsc.errors import ConfigError


@dataclasses.dataclass
class UserObjects:
    """The user's own objects; None where there is none. They are not written to files."""

    model: Any = None  # plsc.models.BaseModel
    optimizer: Any = None  # paddle.optimizer.Optimizer
    train_dataset: Any = None  # __len__ and __getitem__ -> (image, label)
    train_reader: Callable | None = None  # PLSC 0.1's: a function that returns an iterable of (image, label)
    test_dataset: Any = None  # __len__ and __getitem__
    param_attr: Any = None  # paddle.ParamAttr of the classifier's weight
    bias_attr: Any = None  # paddle.ParamAttr of the classifier's bias (softmax)

    def check(self, config: Config) -> None:
        """Raise ConfigError for objects that contradict each other or the settings when a run starts."""
        if self.train_dataset is not None and self.train_reader is not None:
            raise ConfigError("train_reader: train_dataset is set as well; set one of the two to None")
        if self.bias_attr is not None and config.loss().normalised:
            raise ConfigError(
                f"set_distfc_attr(bias_attr=...): classifier.loss_type={config.classifier.loss_type!r} has no bias; "
                "only softmax has one"
            )
        if self.model is None:
            MODEL.check(config.settings)
        if self.train_dataset is None and self.train_reader is None and not config.data.sources:
            SOURCE.check(config.settings)
        SCHEDULE.check(config.settings)
        if self.optimizer is None:
            check_optimizers(config.settings)
        _check_attribute("param_attr", self.param_attr)
        _check_attribute("bias_attr", self.bias_attr)

    def for_one_run(self) -> UserObjects:
        """A copy with its own optimizer: one that was used in a program cannot be used in another."""
        return dataclasses.replace(self, optimizer=copy.deepcopy(self.optimizer))

    def names(self) -> dict[str, str | None]:
        """The module and name of the function or class of each object."""
        return {field.name: qualified_name(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def without_effect(self, config: Config) -> list[str]:
        """A line for every key that was changed from its default but has no effect because of a user object."""
        rate = ["lr", "lr_reference_batch", "momentum", "weight_decay", *_keys("lr_schedule."), *_keys("optimizer."),
                *_keys("class_optimizer.")]  # fmt: skip
        source = ["data.dataset", "data.options", "data.label_file", "data.sources", "data.random_flip",
                  "data.augmentations", "data.pixel_std"]  # fmt: skip
        own_data = self.train_dataset is not None or self.train_reader is not None
        idle = [
            (self.optimizer is not None, "an optimizer of your own (set_optimizer)", rate),
            (self.model is not None, "a model of your own (set_model)",
             ["model.name", "model.data_format", "model.dropout", "model.base_width", "model.options"]),
            (self.test_dataset is not None, "test data of your own (test_dataset)", ["data.val_targets"]),
            (own_data, "training data of your own (train_dataset, train_reader)", source),
            (self.train_reader is not None, "a train_reader, whose order is kept", ["data.shuffle_window"]),
        ]  # fmt: skip
        lines = [
            f"{text}: has no effect with {reason}"
            for given, reason, keys in idle
            if given
            for text in changed(config.settings, keys)
        ]
        for attr in (self.param_attr, self.bias_attr):
            if getattr(attr, "name", None) is not None:
                lines.append(f"set_distfc_attr: name={attr.name!r}: has no effect, the name is set by the rank")
        return lines


def qualified_name(value: Any) -> str | None:
    """Module and name of a function, else of the class of an object, with the learning rate of one of Paddle's that
    has one; None for None."""
    if value is None:
        return None
    while hasattr(value, "func") and not hasattr(value, "__qualname__"):  # functools.partial
        value = value.func
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{named.__module__}.{named.__qualname__}"
    if _is_instance_by_name(value, "paddle", "Optimizer"):
        return f"{name}, learning rate {value.get_lr()}"
    if _is_instance_by_name(value, "paddle", "ParamAttr"):
        return f"{name}, learning rate {value.learning_rate}"
    return name


def _keys(prefix: str) -> list[str]:
    return [key for key in OPTIONS if key.startswith(prefix)]


def _check_attribute(which: str, attr: Any) -> None:
    """Raise ConfigError for attributes of a ParamAttr that the classifier's weight does not support."""
    for field, usual, instead in (
        ("trainable", True, "learning_rate=0.0 keeps the classes fixed"),
        ("need_clip", True, "grad_clip_norm clips all gradients together"),
    ):
        if getattr(attr, field, usual) != usual:
            raise ConfigError(f"set_distfc_attr({which}=...): {field}={not usual}: must be {usual}; {instead}")
    if which == "bias_attr":
        # the bias is a column of the weight, moved with it
        for field, default in (("learning_rate", 1.0), ("regularizer", None)):
            if getattr(attr, field, default) != default:
                raise ConfigError(
                    f"set_distfc_attr(bias_attr=...): {field}: the bias follows that of param_attr; set it there"
                )


def _is_instance_by_name(value: Any, package: str, name: str) -> bool:
    """True if a class of this name from this package is among the ancestors; does not import the package."""
    return any(kind.__name__ == name and kind.__module__.split(".")[0] == package for kind in type(value).__mro__)


def _refuse(part: str, value: Any, allowed: str) -> ConfigError:
    kind = value.__name__ + " (a class)" if isinstance(value, type) else type(value).__name__
    return ConfigError(f"{part}: got {kind}, must be {allowed}, or None")


def checked_object(name: str, value: Any) -> Any:
    """The value, if it is valid for this user object, or None. Raises ConfigError that says what is allowed."""
    if value is None:
        return None
    if name == "model":
        fits, allowed = _is_instance_by_name(value, "plsc", "BaseModel"), "an instance of plsc.models.BaseModel"
    elif name == "optimizer":
        fits, allowed = _is_instance_by_name(value, "paddle", "Optimizer"), "an instance of paddle.optimizer.Optimizer"
    elif name in ("param_attr", "bias_attr"):
        fits, allowed = _is_instance_by_name(value, "paddle", "ParamAttr"), "a paddle.ParamAttr"
    elif name == "train_reader":
        fits, allowed = callable(value), "a function that returns an iterable of (image, label)"
    else:
        sized = hasattr(value, "__len__") and hasattr(value, "__getitem__")
        fits, allowed = sized and not isinstance(value, (type, str)), "an object with __len__ and __getitem__"
    if not fits:
        raise _refuse(name, value, allowed)
    return value
