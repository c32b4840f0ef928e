"""The settings of a trained model, taken from its checkpoint where the user set none of them."""

from __future__ import annotations

from typing import Any

from plsc import checkpoint
from plsc.config import OPTIONS, Config
from plsc.config.format_value import format_value
from plsc.config.user_objects import UserObjects
from plsc.errors import CheckpointError, ConfigError, ExportError
from plsc.registry import MODELS
from plsc.serving import is_exported, read_description

SECTIONS = ("model.", "classifier.", "data.")  # what a feature of an image depends on, and where its images lie


def with_stored_settings(config: Config, user_objects: UserObjects) -> tuple[Config, str]:
    """(the settings to use, a line that says what was taken from ``checkpoint_dir``, "" for nothing).

    Where the user set a key of the model or the classifier, or gave a model, all stays as it is; else what was not set
    of SECTIONS is what the checkpoint was trained with. An exported model says itself what it takes. A checkpoint that
    is missing is for others to refuse.
    """
    if config.checkpoint_dir and is_exported(config.checkpoint_dir):
        return _with_described_input(config), ""
    own = user_objects.model is not None or any(key.startswith(SECTIONS[:2]) for key in config.given)
    if own or not config.checkpoint_dir:
        return config, ""
    try:
        path = checkpoint.resolve(config.checkpoint_dir)
        stored = usable_settings(path, checkpoint.read_manifest(path).config)
    except CheckpointError:
        return config, ""
    values = {key: _value(stored, key) for key in OPTIONS if key.startswith(SECTIONS) and key not in config.given}
    if "data.dataset_dir" in config.given:  # the sets of another directory are those that are there
        values.pop("data.val_targets", None)
    changed = {key: value for key, value in values.items() if value is not _MISSING and value != config.get(key)}
    if not changed:
        return config, ""
    used = config.copy()
    try:
        used.update(changed, path)
    except ConfigError as error:
        return config, f"the settings in the checkpoint are not taken: {error}"
    taken = ", ".join(f"{key}={format_value(value)}" for key, value in changed.items())
    return used, f"taken from {path}, since no key of the model was set: {taken}"


def _with_described_input(config: Config) -> Config:
    """The settings, with the images that an exported model takes: its description counts, whatever is set."""
    try:
        about = read_description(config.checkpoint_dir)
    except ExportError:  # told by what opens it
        return config
    used = config.copy()
    used.update({"model.image_shape": about.image_shape, "data.pixel_std": about.pixel_std}, config.checkpoint_dir)
    if about.resize is not None and "data.resize" not in config.given:
        used.set("data.resize", about.resize, config.checkpoint_dir)
    return used


def stored_resize(stored: dict[str, Any]) -> str | None:
    """``data.resize`` of the settings in a checkpoint; None where it is not there, as in those of earlier versions."""
    value = _value(stored, "data.resize")
    return value if isinstance(value, str) and _is_good("data.resize", value) else None


def usable_settings(path: str, stored: dict[str, Any]) -> dict[str, Any]:
    """The settings in a checkpoint, without a data source and augmentations that are not known here: a trained model
    needs none.

    Raises ConfigError for a model of a plugin that is not imported. No plugin is imported because a checkpoint says so:
    plugins are code, and a checkpoint may come from anywhere.
    """
    data, model = stored.get("data"), stored.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if isinstance(name, str) and name not in MODELS and stored.get("plugins"):
        plugins = format_value(stored["plugins"])
        raise ConfigError(
            f"{path}: its model {format_value(name)} is not known here; it was trained with plugins: {plugins}; set "
            "`plugins` to the modules that register the model (-o plugins=...)"
        )
    if not isinstance(data, dict):
        return stored
    unknown = {key for key in ("dataset", "augmentations") if key in data and not _is_good(f"data.{key}", data[key])}
    unknown |= {"options"} if "dataset" in unknown else set()
    return {**stored, "data": {key: value for key, value in data.items() if key not in unknown}}


def _is_good(key: str, value: Any) -> bool:
    try:
        OPTIONS[key].check(value)
    except ConfigError:
        return False
    return True


_MISSING = object()


def _value(stored: dict, key: str) -> object:
    section, _, name = key.partition(".")
    found = stored.get(section)
    return found.get(name, _MISSING) if isinstance(found, dict) else _MISSING
