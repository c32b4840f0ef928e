"""All keys by their dotted names, and suggestions for unknown ones."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from plsc.config.format_value import format_value
from plsc.config.option import Option, prefixed
from plsc.config.schema import Settings
from plsc.errors import ConfigError


def _options(kind: type, prefix: str = "") -> list[Option]:
    found = []
    for field in dataclasses.fields(kind):
        if "section" in field.metadata:
            found += _options(field.metadata["section"], f"{prefix}{field.name}.")
        else:
            found.append(Option.from_field(field, prefix))
    return found


OPTIONS: dict[str, Option] = {entry.key: entry for entry in _options(Settings)}

# The names of PLSC 0.1 and 0.2: emb_dim -> model.embedding_size.
OLD_NAMES: dict[str, str] = {name: entry.key for entry in OPTIONS.values() for name in entry.attributes}

SECTIONS: dict[str, str] = {
    field.name: field.metadata["doc"] for field in dataclasses.fields(Settings) if "section" in field.metadata
}


def fields() -> tuple[Option, ...]:
    """Every key of the schema in order, for the docs: key, kind, default, unit, allowed, doc, setter, ..."""
    return tuple(OPTIONS.values())


def nearest(name: str) -> list[str]:
    """The keys or the section that `name` may be a misspelling of, best first, at most three."""
    sections = difflib.get_close_matches(name, SECTIONS, n=1, cutoff=0.75)
    if sections:
        return sections
    leaf = name.rpartition(".")[2]
    same_leaf = [key for key in OPTIONS if key.rpartition(".")[2] == leaf]
    if same_leaf or leaf in OLD_NAMES:
        return same_leaf or [OLD_NAMES[leaf]]
    leaves: dict[str, list[str]] = {}
    for key in OPTIONS:
        leaves.setdefault(key.rpartition(".")[2], []).append(key)
    whole = difflib.get_close_matches(name, OPTIONS, n=3, cutoff=0.75)
    part = [key for close in difflib.get_close_matches(leaf, leaves, n=2, cutoff=0.7) for key in leaves[close]]
    close = list(dict.fromkeys(part + whole))
    here = [key for key in close if key.rpartition(".")[0] == name.rpartition(".")[0]]  # the section was meant
    return (here or close)[:3]


def find_option(key: Any, value: Any, source: str) -> Option:
    """The option of this name. Raises ConfigError for an unknown name, with the nearest ones."""
    if isinstance(key, str) and key in OPTIONS:
        return OPTIONS[key]
    key = " ".join(str(key)[:100].split())
    if key in SECTIONS:
        keys = ", ".join(name for name in OPTIONS if name.startswith(key + "."))
        raise ConfigError(
            f"{prefixed(source)}{key}={format_value(value)}: is a section, give a mapping of its keys: {keys}"
        )
    whole, _, inner = key.rpartition(".")
    if whole in OPTIONS and OPTIONS[whole].kind == "dict":
        raise ConfigError(f"{prefixed(source)}{key}={format_value(value)}: write {whole}={{{inner}: ...}}, a mapping")
    close = nearest(key)
    # The value may be the password.
    secret = key.startswith("remote") or any(name in OPTIONS and OPTIONS[name].secret for name in close)
    text = "<hidden>" if secret else format_value(value)
    hint = f"did you mean {' or '.join(close)}?" if close else "see docs/configuration.md for the keys"
    raise ConfigError(f"{prefixed(source)}{key}={text}: there is no such key; {hint}")
