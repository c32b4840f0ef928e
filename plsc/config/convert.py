"""Converts values of YAML or Python to plain data of one type. Lossless conversions only; others raise ValueError."""

from __future__ import annotations

import copy
import math
import numbers
import os
import re
from collections.abc import Mapping
from typing import Any

from plsc.config.augmentations import PRESETS

# YAML 1.1 reads 1e-3 (no point, or no sign in the exponent) as text. Nobody means text by it.
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
MOST_CHARACTERS, MOST_ITEMS = 4096, 10_000  # of a text (as of a path), of a list
MOST_DEPTH = 10  # of lists and mappings in each other, in an option
_LABEL_TYPE, _IMAGE_TYPE = "int64", "float32"  # what the data gives


def to_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError
    return int(value)


def to_float(value: Any) -> float:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("too large") from None
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def to_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def to_str(value: Any) -> str:
    """Text, or a path object."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise ValueError("put it in quotes" if isinstance(text, (int, float)) else "")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(text)} characters, more than {MOST_CHARACTERS}")
    if any(ord(character) < 32 or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("it holds a newline, another control character, or half a surrogate pair")
    return text


def to_list(value: Any) -> list:
    if not isinstance(value, (list, tuple)):
        raise ValueError
    if len(value) > MOST_ITEMS:
        raise ValueError(f"{len(value)} items, more than {MOST_ITEMS}")
    return list(value)


def to_int_list(value: Any) -> list[int]:
    return [to_int(item) for item in to_list(value)]


def to_str_list(value: Any) -> list[str]:
    """A list of texts, or one text with commas. Empty names are refused."""
    items = value.split(",") if isinstance(value, str) else to_list(value)
    names = [to_str(item).strip() for item in items]
    if isinstance(value, str) and names == [""]:
        return []
    if "" in names:
        raise ValueError("an empty name")
    return names


def to_options(value: Any) -> dict:
    """A mapping of names to plain values, as YAML and JSON both have them: text, numbers, lists, mappings, null."""
    if not isinstance(value, Mapping) or len(value) > MOST_ITEMS:
        raise ValueError
    return {_option_name(name): _to_plain(item, MOST_DEPTH) for name, item in value.items()}


def _option_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"the name {name!r:.40} is not a plain word")
    return name


def _to_plain(value: Any, depth: int) -> Any:
    """A copy of plain data. Text that is a number with an exponent becomes that number."""
    if depth == 0:
        raise ValueError("nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        if not -(2**63) <= int(value) < 2**63:
            raise ValueError("an integer of more than 64 bits")
        return int(value)
    if isinstance(value, numbers.Real) or (isinstance(value, str) and _EXPONENT.fullmatch(value)):
        return to_float(value)
    if isinstance(value, Mapping):
        return {to_str(name): _to_plain(item, depth - 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item, depth - 1) for item in to_list(value)]
    return to_str(value)


def to_augmentations(value: Any) -> list[str | dict]:
    """Names, or {name: options}, in a list; or one text: the name of a preset, or names with commas."""
    if isinstance(value, str):
        return copy.deepcopy(PRESETS[value.strip()]) if value.strip() in PRESETS else list(to_str_list(value))
    return [_to_augmentation(item) for item in to_list(value)]


def _to_augmentation(item: Any) -> str | dict:
    if not isinstance(item, Mapping):
        return to_str(item)
    if len(item) != 1:
        raise ValueError("a mapping in the list must have one name")
    ((name, options),) = item.items()
    return {to_str(name): {} if options is None else to_options(options)}


def to_inputs(value: Any) -> list[dict]:
    """PLSC 0.2's input_info: [{"name": "image", "shape": [-1, 3, 112, 112], "dtype": "float32"}, ...], with a label."""
    inputs = [_to_input(item) for item in to_list(value)]
    names = [item["name"] for item in inputs]
    if len(set(names)) != len(names):
        raise ValueError("a name is given twice")
    if "label" not in names:
        raise ValueError("no input is named label")
    return inputs


def _to_input(item: Any) -> dict:
    if not isinstance(item, Mapping) or set(item) != {"name", "shape", "dtype"}:
        raise ValueError("an input has the keys name, shape and dtype, no others")
    name, shape, dtype = to_str(item["name"]), to_int_list(item["shape"]), item["dtype"]
    if not name.isidentifier():
        raise ValueError(f"the name {name[:40]!r} is not a plain word")
    if not 1 <= len(shape) <= 8 or shape[0] != -1 or not all(1 <= size <= 16384 for size in shape[1:]):
        raise ValueError(f"the shape of {name[:40]} must be -1, the batch, and then sizes from 1 to 16384")
    wanted = _LABEL_TYPE if name == "label" else _IMAGE_TYPE
    if dtype != wanted:
        raise ValueError(f"the dtype of {name[:40]} must be {wanted}, as the data gives it")
    if name == "label" and shape not in ([-1], [-1, 1]):
        raise ValueError("the shape of label must be [-1] or [-1, 1]")
    return {"name": name, "shape": shape, "dtype": dtype}


SOURCE_KEYS = ("dataset", "dataset_dir", "label_file", "options", "class_offset", "num_classes")


def to_sources(value: Any) -> list[dict[str, Any]]:
    """[{"dataset_dir": "a", "class_offset": 0}, ...]: mappings of SOURCE_KEYS, the directory in each."""
    return [_to_source(item) for item in to_list(value)]


def _to_source(item: Any) -> dict[str, Any]:
    found = to_options(item) if isinstance(item, Mapping) else {}
    unknown = [name for name in found if name not in SOURCE_KEYS]
    if unknown or "dataset_dir" not in found:
        what = f"it has {unknown[0]}" if unknown else "one has no dataset_dir"
        raise ValueError(f"{what}; a source has the keys {', '.join(SOURCE_KEYS)}")
    for name, least in (("class_offset", 0), ("num_classes", 1)):
        number = found.get(name)
        if number is not None and not least <= to_int(number) < 2**31:
            raise ValueError(f"{name} must be from {least} to {2**31 - 1}")
    return found


CONVERTERS = {
    "int": to_int,
    "float": to_float,
    "bool": to_bool,
    "str": to_str,
    "list[int]": to_int_list,
    "list[str]": to_str_list,
    "list[dict]": to_inputs,
    "list[dict[str, Any]]": to_sources,
    "dict": to_options,
    "list[str | dict]": to_augmentations,
}

TYPE_NAMES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list[int]": "a list of integers",
    "list[str]": "a list of texts or one text with commas",
    "list[dict]": "a list of {name, shape, dtype}, one of them named label",
    "list[dict[str, Any]]": "a list of {dataset_dir, dataset, label_file, options, class_offset, num_classes}",
    "dict": "a mapping of names to values",
    "list[str | dict]": "a list of names, or of {name: {option: value}}",
}
