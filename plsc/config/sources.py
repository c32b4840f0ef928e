"""Sources of values: a YAML file, a mapping, `-o key=value`. All become items (key, value, source)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from plsc.config.format_value import format_value
from plsc.config.keys import OPTIONS, SECTIONS
from plsc.config.option import prefixed
from plsc.errors import ConfigError
from plsc.files import safe_open

log = logging.getLogger(__name__)

MOST_DEPTH, MOST_VALUES = 20, 100_000
# What PyYAML raises; the last four also where a tag (!!int, !!bool) does not fit its text.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError, OverflowError)


class Item(NamedTuple):
    """One value for the configuration. source: "run.yaml:3", "-o", "set_lr()" or ""."""

    key: str
    value: Any
    source: str


def items_of_mapping(mapping: Any, source: str = "", prefix: str = "") -> list[Item]:
    """The items of a nested mapping; keys may be dotted. A section that is null counts as empty."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{prefixed(source)}a mapping of keys is needed, not {format_value(mapping)}")
    items: list[Item] = []
    for name, value in mapping.items():
        if not isinstance(name, str):
            raise ConfigError(f"{prefixed(source)}{prefix}{format_value(name)}: a key must be text")
        key = prefix + name
        if key in SECTIONS and (value is None or isinstance(value, Mapping)):
            items += items_of_mapping(value or {}, source, key + ".")
        else:
            items.append(Item(key, value, source))
    return items


def items_of_assignments(assignments: Iterable[str]) -> list[Item]:
    """The items of texts such as "classifier.sample_ratio=0.1"; the right side is read as YAML."""
    items: list[Item] = []
    for text in assignments:
        key, equals, right = text.partition("=")
        key = key.strip()
        if not equals or not key:
            hidden = "<hidden>" if not key or "remote" in text or "fs_ugi" in text else format_value(text)
            raise ConfigError(f"-o {hidden}: must be key=value")
        try:
            value = _parse_yaml(right)
        except _NOT_YAML as error:
            hidden = "<hidden>" if key.startswith("remote") else format_value(right)
            raise ConfigError(f"-o {key}={hidden}: is not YAML ({_reason(error)}); put quotes around a text") from None
        if value is None and not right.strip() and _is_text(key):
            value = ""
        items += items_of_mapping({key: value}, "-o")
    for item in items:
        if item.value is not None and item.key in OPTIONS and OPTIONS[item.key].secret:
            log.warning(
                "-o %s: every user of this machine can read command lines, and Paddle's launcher repeats them in its "
                "logs; write it into the YAML file, and let only yourself read that (chmod 600)", item.key
            )  # fmt: skip
    return items


def _is_text(key: str) -> bool:
    """Whether `-o key=` means an empty text; it means null where null is allowed."""
    return key in OPTIONS and OPTIONS[key].kind in ("str", "list[str]") and not OPTIONS[key].optional


def _parse_yaml(text: str) -> Any:
    """Parse a text as YAML."""
    if len(text) > safe_open.YAML:
        raise ValueError(f"{len(text)} characters, more than {safe_open.YAML}")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _require_small(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _require_small(root: yaml.Node) -> None:
    """Raise YAMLError where aliases (&a, *a) expand a text to too many values, or where it is nested too deeply.

    Nine lines that each refer to the previous one nine times make a list of a billion values.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > MOST_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES  # as long as it is not known: one that holds itself is too large
            items = zip(node.value) if isinstance(node, yaml.SequenceNode) else node.value
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for item in items for part in item)
        if sizes[id(node)] > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES} values", problem_mark=node.start_mark)
        return sizes[id(node)]

    size(root, 0)


def items_of_yaml(path: str | os.PathLike) -> list[Item]:
    """The items of a YAML file, each with its line. An empty file has none."""
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"the name of a YAML file is needed, not {format_value(path)}")
    name = os.fspath(path)
    try:
        with safe_open.open_bytes(name, safe_open.YAML) as file:
            loader = yaml.SafeLoader(file)
            try:
                root = loader.get_single_node()
                if root is not None:
                    _require_small(root)
                return [] if root is None else _node_items(loader, root, str(name), "")
            finally:
                loader.dispose()
    except OSError as error:
        raise ConfigError(f"{name}: cannot read the configuration: {error.strerror or error}") from None
    except ConfigError:
        raise
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else str(name)
        raise ConfigError(f"{place}: is not YAML: {_reason(error)}") from None


def _node_items(loader: yaml.SafeLoader, node: yaml.Node, path: str, prefix: str) -> list[Item]:
    """The items of one mapping node; `prefix` is the dotted name of the section that it is."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_place(path, node)}: {prefix or 'the file'} must be a mapping of keys (`lr: 0.1`)")
    items: list[Item] = []
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        place = _place(path, key_node)
        name = loader.construct_object(key_node, deep=True)
        if not isinstance(name, str):
            raise ConfigError(f"{place}: {prefix}{format_value(name)}: a key must be text")
        if name in seen:
            raise ConfigError(f"{place}: {prefix}{name}: the key is given twice, first in line {seen[name]}")
        seen[name] = key_node.start_mark.line + 1
        if prefix + name in SECTIONS:
            items += _node_items(loader, value_node, path, f"{prefix}{name}.")
        else:
            items.append(Item(prefix + name, loader.construct_object(value_node, deep=True), place))
    return items


def _place(path: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _reason(error: Exception) -> str:
    """The error in one line, without the text of the file, which may hold a password."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part[:100] for part in (error.context, error.problem) if part)
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.reason} at byte {error.position}"
    if not isinstance(error, ValueError):
        return "a value does not fit its tag (!!...)"
    return " ".join(str(error).split())[:200]
