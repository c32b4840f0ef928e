"""`Entry`, the public interface: settings, and the methods train, test, predict, clean and so on.

The work is done in plsc.engine.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from plsc.backend.paddle_version import require_paddle
from plsc.config import OLD_NAMES, Config
from plsc.config.user_objects import UserObjects, checked_object
from plsc.errors import ConfigError
from plsc.parallel import joining
from plsc.parallel.environment import quiet_paddle_logs
from plsc.parallel.excepthook import install_excepthook
from plsc.setters import Setters
from plsc.terminal import open_standard_streams

if TYPE_CHECKING:  # importing them imports Paddle
    from plsc.cleaning.report import Report
    from plsc.cleaning.request import Request
    from plsc.engine.cleaning.merge import Merged
    from plsc.engine.inference.predict import Prediction
    from plsc.engine.memory.plan import MemoryPlan
    from plsc.engine.training.result import Result
    from plsc.evaluation.results import Verifications

_OBJECT_NAMES = tuple(field.name for field in dataclasses.fields(UserObjects))

# Attributes of PLSC 0.x that no longer exist, and what to use instead.
_REMOVED = {
    "test_reader": "set test_dataset",
    "predict_reader": "give predict() what to read",
    "trainer_id": "the launch decides it (python -m paddle.distributed.launch)",
    "num_trainers": "the launch decides it (python -m paddle.distributed.launch)",
    "global_train_batch_size": "use set_train_batch_size, the images per rank",
    "global_test_batch_size": "use set_test_batch_size, the images per rank",
    "fp16_user_dict": "use set_mixed_precision",
    "lr_scheduler": "use set_lr, set_step_boundaries and the section lr_schedule",
    "use_quant": "there is no quantised training",
    "config": "use Entry(config=...) or set(key, value)",
}


class Entry(Setters):
    """One run: its settings and the user's own objects.

    config_file: a YAML file. config: a Config or a nested mapping. Without either, the defaults. Settings are changed
    by the setters, by `set(key, value)`, or by assigning the attributes of PLSC 0.1 and 0.2 (`lr`, `scale`, `margin`,
    `lr_steps`, `train_reader`, `train_dataset`, `test_dataset`, ...), which do the same as the setters. Assigning any
    other attribute raises AttributeError.

    The constructor installs a hook that prints an uncaught PlscError as one line (plsc.parallel.excepthook), opens
    closed standard streams as /dev/null (plsc.terminal), and begins to connect with the other ranks
    (plsc.parallel.joining).
    """

    def __init__(self, config_file: str | os.PathLike | None = None, config: Config | Mapping | None = None) -> None:
        open_standard_streams()
        install_excepthook()
        joining.join()
        if config_file is not None and config is not None:
            raise ConfigError("Entry: config_file and config are both given; give one of the two")
        if config_file is not None:
            settings = Config.from_yaml(config_file)
        elif isinstance(config, Config):
            settings = config.copy()
        else:
            settings = Config() if config is None else Config.from_dict(config)
        object.__setattr__(self, "_config", settings)
        object.__setattr__(self, "_user_objects", UserObjects())

    @property
    def config(self) -> dict[str, Any]:
        """All settings as nested plain data, without secrets. It is a copy: changing it changes nothing."""
        return self._config.to_dict()

    def train(self) -> Result:
        """Train, verify and save as configured. Raises a PlscError for any error that the user can correct."""
        return _engine().train(self._config, self._user_objects)

    def test(self, json_file: str | os.PathLike = "", html_file: str | os.PathLike = "") -> Verifications:
        """Verify the model in checkpoint_dir on val_targets or test_dataset.

        json_file, html_file: where to write the metrics, and a page with curves and the worst errors.
        """
        return _engine().test(self._config, self._user_objects, os.fspath(json_file), os.fspath(html_file))

    def predict(self) -> Prediction:
        """The features of images by the model in checkpoint_dir; predict.images says which images."""
        return _engine().predict(self._config, self._user_objects)

    def clean(self, request: Request | None = None) -> Report | None:
        """Errors in the training data by the model in checkpoint_dir; None on all ranks but 0. See docs/clean.md."""
        from plsc.cleaning.request import Request

        return _engine().clean(self._config, self._user_objects, request or Request())

    def merge_centres(self) -> Merged | None:
        """Write the checkpoint in checkpoint_dir with one of the several centres of each class (sub_centres) to
        model_save_dir; None on all ranks but 0. See docs/checkpoints.md."""
        return _engine().merge_centres(self._config, self._user_objects)

    def convert_for_prediction(self) -> str:
        """Export the backbone in checkpoint_dir as a model for prediction; returns its directory."""
        return _engine().convert_for_prediction(self._config, self._user_objects)

    def plan(self, ranks: int | None = None, memory_gb: float | None = None) -> MemoryPlan:
        """The memory that each rank of ``train()`` will need; nothing is run. The result prints as a table.

        ranks: None for those of this launch. memory_gb: of each rank, in 1e9 bytes; None for an equal part of the free
        memory of this machine. Raises ConfigError.
        """
        return _engine().plan(self._config, self._user_objects, ranks, memory_gb)

    def __setattr__(self, name: str, value: Any) -> None:
        setters = self._attribute_setters()
        if name in setters:
            setters[name](value)
        elif name in _OBJECT_NAMES:
            setattr(self._user_objects, name, checked_object(name, value))
        elif name in OLD_NAMES:
            self._config.set(OLD_NAMES[name], value, f"Entry.{name}")
        else:
            raise AttributeError(_unknown_attribute(name, "cannot be assigned"))

    def __getattr__(self, name: str) -> Any:
        # Only reached for what is neither a method nor a property.
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _OBJECT_NAMES:
            return getattr(self._user_objects, name)
        if name in OLD_NAMES:
            return self._config.get(OLD_NAMES[name])
        raise AttributeError(_unknown_attribute(name, "does not exist"))


def _engine() -> ModuleType:
    """The module that does the work. Raises LaunchError where Paddle is missing or its version is not supported."""
    quiet_paddle_logs()
    require_paddle()
    from plsc.engine import actions as run

    return run


def _unknown_attribute(name: str, what: str) -> str:
    if name in _REMOVED:
        return f"Entry.{name} {what}: {_REMOVED[name]}"
    setters = [method for method in dir(Entry) if method.startswith("set")]
    known = {**{method: method for method in setters}, **{method[4:]: method for method in setters}}
    known.update({attribute: attribute for attribute in (*OLD_NAMES, *_OBJECT_NAMES)})
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Entry.{name} {what}; " + (f"did you mean {known[close[0]]}?" if close else "see docs/configuration.md")
