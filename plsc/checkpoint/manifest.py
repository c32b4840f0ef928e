"""The manifest: the contents of a checkpoint as plain JSON, every field checked when it is read."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, fields
from typing import Any

from plsc.checkpoint.layout import MANIFEST, MANIFEST_SUM, file_names
from plsc.checkpoint.pending_rows import pending_tensors, touched_spec, window_spec
from plsc.checkpoint.tensors import TensorSpec
from plsc.errors import CheckpointError
from plsc.files import plain_json, safe_open
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import FileEntry, hash_bytes
from plsc.parallel.shards import class_range

FORMAT = "plsc-checkpoint"
VERSION = 1
MAX_STEPS = 1 << 20  # of a window
WITH_ROW_HISTORY = 2  # the version with pending rows, see plsc.checkpoint.pending_rows
WITH_OPTIMIZER = 3  # the same, for another optimizer than momentum
MAX_NUMBERS = 1024  # of a step in a window
MAX_CLASSES_OF_CLASS = 1024  # that a table of class numbers keeps for each class

# Passed by the caller of `save`; the rest of the manifest follows from the tensors.
META_KEYS = (
    "paddle_version", "num_classes", "sub_centres", "embedding_size", "epoch", "position", "data", "config",
    "random_states", "lr_state", "extra",
)  # fmt: skip

# The valid ranges; larger values would crash or exhaust the memory.
RANGES = {
    "step": (0, 10**15), "epoch": (0, 10**15), "world_size": (1, 65536), "num_classes": (1, 2**31 - 1),
    "embedding_size": (1, 65536), "sub_centres": (1, 65536),
}  # fmt: skip
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """One checkpoint without its tensors.

    `step` optimizer steps are done; `position` is the place in the data of `epoch`; `world_size` is the number of
    ranks that trained. `data` is a record of the training data, empty where that is not known.
    `class_ranges[i]` are the classes [first, last) of shard file i; there can be fewer shards than ranks.
    Shapes in `shard_tensors` are those of all shards together: [num_classes],
    [num_classes, embedding_size], or with a bias as the last column [num_classes, embedding_size + 1]; with several
    `sub_centres` of a class, one after the other, [num_classes, sub_centres * embedding_size]. A tensor of class
    numbers (I32) has any width.
    `row_history`: {"steps": n} where rows of `weight` and `velocity` are pending, with more fields for other optimizers
    than momentum, see plsc.checkpoint.pending_rows; its two tensors are not listed here.
    """

    plsc_version: str
    paddle_version: str
    step: int
    epoch: int
    world_size: int
    num_classes: int
    embedding_size: int
    class_ranges: tuple[tuple[int, int], ...]
    position: dict[str, Any]
    data: dict[str, Any]
    config: dict[str, Any]
    random_states: dict[str, Any]
    lr_state: dict[str, Any]
    extra: dict[str, Any]
    replicated_tensors: tuple[TensorSpec, ...]
    shard_tensors: tuple[TensorSpec, ...]
    files: dict[str, FileEntry]
    row_history: dict[str, Any] | None = None
    sub_centres: int = 1

    @property
    def num_shards(self) -> int:
        return len(self.class_ranges)

    def shard_specs(self, index: int) -> list[TensorSpec]:
        """The tensors of shard file `index`, with the shapes they have in it."""
        first, last = self.class_ranges[index]
        return self.stored_specs(last - first)

    def stored_specs(self, rows: int) -> list[TensorSpec]:
        """The tensors of a shard file with `rows` classes, in the order of the file."""
        touched = [] if self.row_history is None else [touched_spec(rows)]
        return touched + [spec.with_rows(rows) for spec in self.shard_tensors]

    def replicated_specs(self) -> list[TensorSpec]:
        """The tensors of the file of replicated tensors, in the order of the file."""
        window = [] if self.row_history is None else [window_spec(self.row_history)]
        return window + list(self.replicated_tensors)

    def to_bytes(self) -> bytes:
        """JSON, one field per line. Raises ValueError where a value is not plain JSON."""
        data: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        data.update((field.name, getattr(self, field.name)) for field in fields(self))
        if self.row_history is None:
            del data["row_history"]
        else:
            data["version"] = _version_of(data)
        if self.sub_centres == 1:
            del data["sub_centres"]
        data["replicated_tensors"] = [spec.to_json() for spec in self.replicated_tensors]
        data["shard_tensors"] = [spec.to_json() for spec in self.shard_tensors]
        data["files"] = {name: {"bytes": f.num_bytes, "sha256": f.sha256} for name, f in self.files.items()}
        lines = [f'"{key}": {json.dumps(value, allow_nan=False)}' for key, value in data.items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def manifest_sum(data: bytes) -> bytes:
    """The contents of manifest.sha256, as `sha256sum` writes it."""
    return f"{hash_bytes(data)}  {MANIFEST}\n".encode()


def carries_manifest(path: str) -> bool:
    """Whether a directory holds a manifest of this format, of whatever version and state otherwise."""
    try:
        data = plain_json.loads(safe_open.read_bytes(os.path.join(path, MANIFEST), safe_open.MANIFEST))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def read_manifest(path: str) -> Manifest:
    """The manifest of the checkpoint directory `path`, every field checked.

    Raises CheckpointError, naming the file, when it is missing, damaged, of an unknown version or inconsistent.
    """
    name = os.path.join(path, MANIFEST)
    raw = _read(name)
    data = _decode(raw, name)
    if _read(os.path.join(path, MANIFEST_SUM)) != manifest_sum(raw):
        raise CheckpointError(f"{name}: damaged, its SHA-256 is not the one in {MANIFEST_SUM}")
    return _checked(data, name)


def manifest_of(raw: bytes, name: str) -> Manifest:
    """The manifest with the contents ``raw``, which ``name`` names in errors. Raises CheckpointError."""
    return _checked(_decode(raw, name), name)


def _decode(raw: bytes, name: str) -> dict[str, Any]:
    try:
        data = plain_json.loads(raw)
    except ValueError as error:
        raise CheckpointError(f"{name}: damaged, {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CheckpointError(f"{name}: not the manifest of a PLSC checkpoint")
    if data.get("version") != _version_of(data):
        raise CheckpointError(
            f"{name}: format version {data.get('version')!r:.40} is unknown, this PLSC reads {VERSION}, and "
            f"{WITH_ROW_HISTORY} or {WITH_OPTIMIZER} with row_history; use the PLSC that wrote it"
        )
    return data


def _checked(data: dict[str, Any], name: str) -> Manifest:
    del data["format"], data["version"]
    try:
        return parse(data)
    except ValueError as error:  # a ConfigError of class_range is one, too
        raise CheckpointError(f"{name}: {error}") from None


def parse(data: dict[str, Any]) -> Manifest:
    """A Manifest from decoded JSON without its first two fields. Raises ValueError, naming the field."""
    data = {"data": {}, "sub_centres": 1, **data}  # which not all manifests have
    _same_keys("field", {field.name for field in fields(Manifest)}, set(data) | {"row_history"})
    for key in ("plsc_version", "paddle_version"):
        _check(isinstance(data[key], str) and len(data[key]) <= 100, key, data[key], "a text of up to 100 characters")
    for key, (least, most) in RANGES.items():
        good = type(data[key]) is int and least <= data[key] <= most
        _check(good, key, data[key], f"an integer in [{least}, {most}]")
    for key in ("position", "data", "config", "random_states", "lr_state", "extra"):
        _check(isinstance(data[key], dict), key, data[key], "an object")
    values = dict(data)
    values["class_ranges"] = _class_ranges(data)
    values["replicated_tensors"] = _specs(data, "replicated_tensors")
    values["shard_tensors"] = _specs(data, "shard_tensors")
    values["files"] = _files(data)
    names = [spec.name for spec in values["replicated_tensors"] + values["shard_tensors"]]
    if len(set(names)) != len(names):
        raise ValueError("two tensors of one name")
    for spec in values["shard_tensors"]:
        # a classifier with a bias keeps it as one more column
        widths = [data["sub_centres"] * data["embedding_size"]]
        widths += [data["embedding_size"] + 1] if data["sub_centres"] == 1 else []
        if spec.dtype == "I32" and len(spec.shape) == 2 and 1 <= spec.shape[1] <= MAX_CLASSES_OF_CLASS:
            widths = [spec.shape[1]]
        if spec.shape not in [(data["num_classes"],), *((data["num_classes"], width) for width in widths)]:
            raise ValueError(
                f"tensor {spec.name} has shape {list(spec.shape)}, which does not agree with num_classes "
                f"{data['num_classes']}, embedding_size {data['embedding_size']} and sub_centres {data['sub_centres']}"
            )
    manifest = Manifest(**values)
    if "row_history" in data:
        _check_row_history(manifest, names)
    return manifest


def _version_of(data: dict[str, Any]) -> int:
    """The version of a manifest with these fields."""
    history = data.get("row_history")
    if history is None:
        return VERSION
    return WITH_OPTIMIZER if isinstance(history, dict) and "optimizer" in history else WITH_ROW_HISTORY


def _check_row_history(manifest: Manifest, names: list[str]) -> None:
    found = manifest.row_history
    found = found if isinstance(found, dict) else {}
    good = type(found.get("steps")) is int and 0 <= found["steps"] <= MAX_STEPS
    known = set(found) == {"steps"} or _describes_optimizer(found)
    _check(good and known, "row_history", manifest.row_history, "{steps}")
    own = {touched_spec(0).name, window_spec(found).name}
    waiting = pending_tensors(found)
    rows = {spec.shape for spec in manifest.shard_tensors if spec.name in waiting and spec.dtype == "F32"}
    moving = {spec.name for spec in manifest.shard_tensors} >= set(waiting) and len(rows) == 1
    _check(moving and not own & set(names), "row_history", found, f"left out without rows of {' and '.join(waiting)}")


def _describes_optimizer(found: dict[str, Any]) -> bool:
    """Whether the fields describe an optimizer, see plsc.checkpoint.pending_rows.describe_optimizer."""
    if set(found) != {"steps", "optimizer", "arguments", "weight_decay", "numbers", "tensors"}:
        return False
    tensors = found["tensors"]
    good = isinstance(found["optimizer"], str) and isinstance(found["arguments"], dict)
    good = good and type(found["weight_decay"]) in (int, float) and found["weight_decay"] >= 0
    good = good and type(found["numbers"]) is int and 1 <= found["numbers"] <= MAX_NUMBERS
    good = good and isinstance(tensors, list) and all(isinstance(one, str) for one in tensors)
    return good and tensors[:1] == ["weight"]


def _class_ranges(data: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    ranges = data["class_ranges"]
    num_shards = len(ranges) if isinstance(ranges, list) else -1
    _check(0 <= num_shards <= data["world_size"], "class_ranges", ranges, "a list of at most world_size ranges")
    expected = [class_range(data["num_classes"], index, num_shards) for index in range(num_shards)]
    _check(ranges == [list(pair) for pair in expected], "class_ranges", ranges, f"{expected!r:.80}, by PLSC's rule")
    return tuple(expected)


def _specs(data: dict[str, Any], key: str) -> tuple[TensorSpec, ...]:
    _check(isinstance(data[key], list), key, data[key], "a list")
    return tuple(TensorSpec.from_json(item) for item in data[key])


def _files(data: dict[str, Any]) -> dict[str, FileEntry]:
    _check(isinstance(data["files"], dict), "files", data["files"], "an object")
    # Only these names are ever opened, so a manifest cannot point outside its directory.
    names = file_names(len(data["class_ranges"]))
    names += [CLASS_NAMES] if CLASS_NAMES in data["files"] else []
    _same_keys("file", set(names), set(data["files"]))
    found = {}
    for name in names:
        entry = data["files"][name]
        good = isinstance(entry, dict) and set(entry) == {"bytes", "sha256"} and type(entry["bytes"]) is int
        good = good and entry["bytes"] >= 0 and isinstance(entry["sha256"], str)
        good = good and _SHA256.fullmatch(entry["sha256"]) is not None
        _check(good, f"files: {name}", entry, "{bytes, sha256}")
        found[name] = FileEntry(entry["bytes"], entry["sha256"])
    return found


def _same_keys(what: str, expected: set[str], found: set[str]) -> None:
    for word, keys in (("missing", expected - found), ("unknown", found - expected)):
        if keys:
            raise ValueError(f"{word} {what} {ascii(', '.join(sorted(keys)))[1:-1]:.200}")


def _check(good: bool, key: str, value: Any, allowed: str) -> None:
    if not good:
        raise ValueError(f"{key} must be {allowed}, got {value!r:.80}")


def _read(name: str) -> bytes:
    try:
        return safe_open.read_bytes(name, safe_open.MANIFEST)
    except OSError as error:
        raise CheckpointError(f"{name}: {error.strerror}; not a complete checkpoint") from None
