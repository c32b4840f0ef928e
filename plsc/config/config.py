"""`Config`: the settings of a run. All values are set through `update`, which checks them."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from plsc.config import rules
from plsc.config.extensions import value_of
from plsc.config.keys import OPTIONS, find_option
from plsc.config.losses import make_loss
from plsc.config.option import prefixed
from plsc.config.schema import DIST_LOSSES, EXCLUSIVE, Settings
from plsc.config.sources import Item, items_of_assignments, items_of_mapping, items_of_yaml
from plsc.errors import ConfigError
from plsc.plugins import load


class Config:
    """Checked settings. Read them as attributes (`config.lr`, `config.classifier.sample_ratio`), write with `set`.

    All ways in (`from_yaml`, `from_dict`, `override`, `set`) refuse a wrong key, type or range with a ConfigError that
    names the source, the key, the value and what is allowed; a refused change leaves everything as it was.
    ``given``: the keys that were set, also those set to their default.
    """

    def __init__(self) -> None:
        object.__setattr__(self, "settings", Settings())
        object.__setattr__(self, "given", frozenset())

    @classmethod
    def from_yaml(cls, path: str | os.PathLike) -> Config:
        """The defaults, changed by a YAML file. An empty file changes nothing. Errors name the file and the line."""
        config = cls()
        config._update(items_of_yaml(path))
        return config

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Config:
        """The defaults, changed by a nested mapping."""
        config = cls()
        config.update(mapping)
        return config

    def copy(self) -> Config:
        """Another Config with the same values."""
        other = Config()
        object.__setattr__(other, "settings", copy.deepcopy(self.settings))
        object.__setattr__(other, "given", self.given)
        return other

    def set(self, key: str, value: Any, source: str = "") -> None:
        """Change one key by its dotted name. Setting train_epochs clears train_steps, and the other way round."""
        self._update(items_of_mapping({key: value}, source))

    def update(self, mapping: Mapping[str, Any], source: str = "") -> None:
        """Change several keys at once, all or none."""
        self._update(items_of_mapping(mapping, source))

    def override(self, assignments: Iterable[str]) -> None:
        """Change keys by texts such as "classifier.sample_ratio=0.1", as -o gives them; all or none."""
        self._update(items_of_assignments(assignments))

    def get(self, key: str) -> Any:
        """The value of a dotted key, as plain data. Raises ConfigError for an unknown key."""
        find_option(key, None, "")
        return copy.deepcopy(value_of(self.settings, key))

    @property
    def layout(self) -> str:
        """The layout inside the backbone, NCHW or NHWC: ``model.data_format``, or where that is null NHWC with mixed
        precision, as in PLSC 2.2."""
        return self.model.data_format or ("NHWC" if self.mixed_precision.enabled else "NCHW")

    def loss(self) -> Any:
        """The plsc.losses.Loss of the section ``classifier``; a new one at each call."""
        return make_loss(self.settings.classifier)

    def margins(self) -> tuple[float, float, float] | None:
        """(margin1, margin2, margin3), by default those of the loss. None for a loss without margins."""
        return self.loss().kernel_margins

    def check(self, world_size: int, device: str | None = None) -> None:
        """Raise ConfigError for settings that contradict each other when a run starts.

        world_size: the number of launched ranks. device: the device of the run ("cpu" or "gpu"), where known.
        """
        rules.check_run(self.settings, world_size, device)

    def without_effect(self) -> list[str]:
        """A line for the log for every key that was changed but has no effect in this combination."""
        return rules.without_effect(self.settings)

    def to_dict(self) -> dict[str, Any]:
        """All values as nested plain data, a copy. Secrets are left out; `get` has them."""
        plain = dataclasses.asdict(self.settings)
        for key in [key for key, entry in OPTIONS.items() if entry.secret]:
            place, _, name = key.rpartition(".")
            del plain[place][name]
        return plain

    def to_yaml(self) -> str:
        """All values as YAML that `from_yaml` reads back. Secrets are left out."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def __getattr__(self, name: str) -> Any:
        # Only called for names that are not attributes of Config itself: the top-level keys and sections.
        if name.startswith("_") or name in ("settings", "given"):
            raise AttributeError(name)
        return getattr(self.settings, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ConfigError(f"config.{name}: cannot be assigned, use config.set({name!r}, value)")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.settings == other.settings

    __hash__ = None  # type: ignore[assignment]  # the way to say that it has none

    def __repr__(self) -> str:
        return f"Config({self.settings!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "given": self.given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "settings", state["settings"])
        object.__setattr__(self, "given", state.get("given", frozenset()))

    def _update(self, items: list[Item]) -> None:
        """Check all items and apply them as one change. Two keys that exclude each other are refused in one change."""
        _load_plugins(items)
        items = [item._replace(value=find_option(*item).check(item.value, item.source)) for item in items]
        changes = _with_exclusive_cleared(_with_parallel_named_by_loss({item.key: item for item in items}))
        settings = self.settings
        for item in changes.values():
            settings = _replaced(settings, item.key, item.value)
        for rule in (rules.check_loss, rules.check_precision):
            try:
                rule(settings)
            except ConfigError as error:
                raise ConfigError(f"{prefixed(_first_source(items))}{error}") from None
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "given", self.given | changes.keys())


def _load_plugins(items: list[Item]) -> None:
    """Import the modules of `plugins` first: other items may name what they register."""
    for item in items:
        if item.key == "plugins":
            for plugin in find_option(*item).check(item.value, item.source):
                load(plugin)


def _with_parallel_named_by_loss(changes: dict[str, Item]) -> dict[str, Item]:
    """PLSC 0.1's dist_arcface is arcface with model_parallel."""
    loss = changes.get("classifier.loss_type")
    if loss is None or loss.value not in DIST_LOSSES:
        return changes
    parallel = changes.get("classifier.model_parallel")
    if parallel is not None and not parallel.value:
        raise ConfigError(
            f"{prefixed(parallel.source)}classifier.model_parallel=False: classifier.loss_type={loss.value!r} says "
            f"the opposite; write {DIST_LOSSES[loss.value]!r}"
        )
    named = loss._replace(value=DIST_LOSSES[loss.value])
    parallel = loss._replace(key="classifier.model_parallel", value=True)
    return {**changes, named.key: named, parallel.key: parallel}


def _with_exclusive_cleared(changes: dict[str, Item]) -> dict[str, Item]:
    """Setting one of two keys that exclude each other clears the other."""
    for pair in EXCLUSIVE:
        given = [changes[key] for key in pair if key in changes and changes[key].value is not None]
        if len(given) == 2:
            first, second = given
            raise ConfigError(
                f"{prefixed(second.source)}{first.key}={first.value} and {second.key}={second.value}: "
                "give only one of the two"
            )
        if given:
            other = pair[1 - pair.index(given[0].key)]
            changes = {**changes, other: given[0]._replace(key=other, value=None)}
    return changes


def _replaced(settings: Settings, key: str, value: Any) -> Settings:
    place, _, name = key.rpartition(".")
    if not place:
        return dataclasses.replace(settings, **{name: value})
    return dataclasses.replace(settings, **{place: dataclasses.replace(getattr(settings, place), **{name: value})})


def _first_source(items: list[Item]) -> str:
    """The source for errors of rules over several keys: that of the last loss or precision key."""
    named = [item.source for item in items if item.key.startswith(("classifier.", "mixed_precision."))]
    return named[-1] if named else ""
