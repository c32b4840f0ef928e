"""One configuration key: its type, default, unit, meaning and range, and the check of a value against them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from plsc.config.convert import CONVERTERS, TYPE_NAMES
from plsc.config.format_value import format_value
from plsc.config.interval import Interval
from plsc.errors import ConfigError
from plsc.registry import Registry


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    within: str = "",
    choices: tuple = (),
    registry: Registry | None = None,
    length: int | None = None,
    filled: bool = False,
    increasing: bool = False,
    secret: bool = False,
    per_rank: str = "",
    refuse: Callable[[Any], str | None] | None = None,
    setter: str = "",
    attributes: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with the metadata of a key.

    within: the range of a number, or of each number of a list. length: the exact number of items of a list.
    registry: the registry of allowed names.
    filled: an empty text or list is refused. increasing: each number of the list is larger than the one before.
    secret: never printed nor written. per_rank: why values may differ between ranks; without it a run is refused if
    they do. refuse: returns the error in a value, or None. setter: the method of Entry that sets it. attributes: the
    names under which PLSC 0.1 and 0.2 kept it on Entry.
    """
    metadata = {
        "doc": doc, "unit": unit, "within": Interval(within) if within else None, "choices": choices, "length": length,
        "registry": registry,
        "filled": filled, "increasing": increasing, "secret": secret, "per_rank": per_rank, "refuse": refuse,
        "setter": setter, "attributes": attributes,
    }  # fmt: skip
    return dataclasses.field(default_factory=lambda: copy.deepcopy(default), repr=not secret, metadata=metadata)


def section(kind: type, doc: str | None) -> Any:
    """A dataclass field that holds a group of keys."""
    return dataclasses.field(default_factory=kind, metadata={"section": kind, "doc": doc})


@dataclasses.dataclass(frozen=True)
class Option:
    """A key of the schema with its full dotted name. See `option` for the fields."""

    key: str
    kind: str  # a key of CONVERTERS, such as "list[int]"
    optional: bool  # None is allowed
    default: Any
    doc: str
    unit: str
    within: Interval | None
    choices: tuple
    registry: Registry | None
    length: int | None
    filled: bool
    increasing: bool
    secret: bool
    per_rank: str
    refuse: Callable[[Any], str | None] | None
    setter: str
    attributes: tuple[str, ...]

    @classmethod
    def from_field(cls, field: dataclasses.Field, prefix: str) -> Option:
        # The annotation is the source text in plsc.config.schema (PEP 563), so that a type is written once.
        kind = field.type.replace(" | None", "")
        default = field.default_factory()  # type: ignore[operator]  # every option has one
        return cls(prefix + field.name, kind, kind != field.type, default, **field.metadata)

    @property
    def allowed(self) -> str:
        """The allowed values, in words: "a number in (0, 1]"."""
        words = TYPE_NAMES[self.kind]
        if self.choices:
            words = "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.registry:
            words = "a list of" if self.kind == "list[str]" else "one of"
            words += " " + ", ".join(self.registry.names())
        if self.length is not None:
            words = words.replace("a list of", f"a list of {self.length}")
        if self.within:
            words += f", each in {self.within.text}" if self.kind == "list[int]" else f" in {self.within.text}"
        if self.increasing:
            words += ", each larger than the one before"
        if self.filled:
            words += ", not empty"
        return words + (" or null" if self.optional else "")

    def check(self, value: Any, source: str = "") -> Any:
        """The value as plain data of the right type. Raises ConfigError: source, key, value, what is allowed."""
        if value is None and self.optional:
            return None
        try:
            plain: Any = CONVERTERS[self.kind](value)
            if not self._fits(plain):
                raise ValueError
        except ValueError as error:
            quotes_help = not self.choices or str(value) in self.choices  # what YAML reads as a number, true or false
            detail = f" ({error})" if str(error) and (isinstance(value, str) or quotes_help) else ""
            message = f"{prefixed(source)}{self.key}={self.format_value(value)}: must be {self.allowed}{detail}"
            raise ConfigError(message) from None
        reason = self.refuse(plain) if self.refuse else None
        if self.registry is not None:
            unknown = [name for name in (plain if isinstance(plain, list) else [plain]) if name not in self.registry]
            which = f"{unknown[0]} " if unknown and isinstance(plain, list) else ""
            reason = which + self.registry.unknown_message(unknown[0]) if unknown else reason
        if reason:
            raise ConfigError(f"{prefixed(source)}{self.key}={self.format_value(value)}: {reason}")
        return plain

    def format_value(self, value: Any) -> str:
        """The value for a message: on one line, shortened, and hidden when it is a secret."""
        return "<hidden>" if self.secret else format_value(value)

    def _fits(self, plain: Any) -> bool:
        items = plain if isinstance(plain, list) else [plain]
        if self.within and not all(item in self.within for item in items):
            return False
        if self.choices and plain not in self.choices:
            return False
        if self.length is not None and len(plain) != self.length:
            return False
        if self.filled and not plain:
            return False
        return not self.increasing or all(a < b for a, b in zip(plain, plain[1:]))


def prefixed(source: str) -> str:
    """The prefix of a message: the origin of the value (a file and line, a setter, -o), if known."""
    return f"{source}: " if source else ""
