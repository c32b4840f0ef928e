"""Registries: losses, models, data sources and so on by name, built-in ones and those of a user's package.

An author writes one file with one decorated class or function. The built-in ones are the modules of one package, all
imported at the first lookup: a new file there needs no entry anywhere. Those of a user are registered when their module
is imported (see plsc.plugins).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plsc.errors import ConfigError


@dataclass(frozen=True)
class RegistryEntry:
    """One name. ``value``: the class or function. ``source``: the paper, or empty. ``module``: where it was written.
    ``within``: the ranges of its options, by their names."""

    name: str
    value: Any
    source: str
    module: str
    within: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.value) or "").partition("\n")[0]


class Registry:
    """Names of one kind.

    kind: for messages ("loss"). builtins: the package whose modules register the names of PLSC; importing them must not
    import Paddle. check: ``check(name, value)`` raises ConfigError for a value that cannot be used, such as a class
    that lacks a method.
    """

    def __init__(self, kind: str, builtins: str, check: Callable[[str, Any], None] | None = None):
        self.kind = kind
        self._builtins = builtins
        self._check = check
        self._entries: dict[str, RegistryEntry] = {}
        self._complete = False

    def register(self, name: str, *, source: str = "", within: Mapping[str, str] | None = None) -> Callable:
        """Decorator that registers a class or function as ``name``. ``source``: the paper it is from. ``within``:
        the ranges of its options, as in {"share": "[0, 1]"}.

        Raises ConfigError for a name that is taken, and for a value that cannot be used. A module that is reloaded (in
        a notebook) may register its own names again.
        """

        def add(value: Any) -> Any:
            module = getattr(value, "__module__", "")
            before = self._entries.get(name)
            if before is not None and not _is_reloaded(before, value):
                raise ConfigError(
                    f"{self.kind} {name!r}: the name is taken by {before.module}.{_qualified_name(before.value)}; "
                    f"choose another one in {module}"
                )
            if self._check is not None:
                self._check(name, value)
            self._entries[name] = RegistryEntry(name, value, source, module, dict(within or {}))
            return value

        return add

    def names(self) -> list[str]:
        """All names: the built-in ones sorted by their files, then a user's in order of registration."""
        return [entry.name for entry in self.entries()]

    def entries(self) -> list[RegistryEntry]:
        """All entries, in the order of ``names``."""
        self._import_builtins()
        def sort_key(one: RegistryEntry) -> tuple[int, str]:  # does not depend on the order of imports
            return (0, one.module) if one.module.startswith(f"{self._builtins}.") else (1, "")

        return sorted(self._entries.values(), key=sort_key)

    def find(self, name: str) -> Any:
        """The class or function registered as ``name``. Raises ConfigError that lists the known names."""
        return self.entry(name).value

    def entry(self, name: str) -> RegistryEntry:
        """The entry of ``name``. Raises ConfigError that lists the known names."""
        self._import_builtins()
        if name not in self._entries:
            raise ConfigError(f"{name!r}: {self.unknown_message(name)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._import_builtins()
        return name in self._entries

    def unknown_message(self, name: str) -> str:
        """The error message for a name that is not registered."""
        names = self.names()
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        own = "or one of your own, in a module that `plugins` names"
        article = "an" if self.kind[0] in "aeiou" else "a"
        return f"is not {article} {self.kind}; {hint}allowed: {', '.join(names)}, {own}"

    def _import_builtins(self) -> None:
        if self._complete:
            return
        self._complete = True  # a built-in module may look up the names registered so far
        package = importlib.import_module(self._builtins)
        for found in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._builtins}.{found.name}")


def _is_reloaded(before: RegistryEntry, value: Any) -> bool:
    """True where ``value`` comes from the same lines of code as ``before``."""
    name = _qualified_name(value)
    same_place = (before.module, _qualified_name(before.value)) == (getattr(value, "__module__", ""), name)
    return same_place and before.value is not value and "<" not in name


def _qualified_name(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)


LOSSES = Registry("loss", "plsc.losses")
MODELS = Registry("model", "plsc.models")
SOURCES = Registry("data source", "plsc.data.sources")
AUGMENTATIONS = Registry("augmentation", "plsc.data.augmentations")
SCHEDULES = Registry("schedule", "plsc.optim.schedules")
METRICS = Registry("metric", "plsc.evaluation.metrics")
OPTIMIZERS = Registry("optimizer", "plsc.rows.optimizers")
REGISTRIES = {  # by the argument of `plsc list`
    "losses": LOSSES, "models": MODELS, "sources": SOURCES, "augmentations": AUGMENTATIONS, "schedules": SCHEDULES,
    "optimizers": OPTIMIZERS, "metrics": METRICS,
}  # fmt: skip
