"""`plsc.json`, which lies beside an exported model: what goes in, what comes out, which files it is made of."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from typing import Any

from plsc.errors import ExportError
from plsc.files import class_names, plain_json, safe_open
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import FileEntry, hash_file, measure_file

DESCRIPTION = "plsc.json"
FORMAT, VERSION = "plsc-exported-model", 1
# The endings of a model's files, in the order in which its runtime takes them.
ENDINGS: dict[str, list[tuple[str, ...]]] = {"paddle": [(".pdmodel", ".json"), (".pdiparams",)], "onnx": [(".onnx",)]}
KINDS = tuple(ENDINGS)


@dataclass(frozen=True)
class Description:
    """What a program needs to know to use the model.

    input_name: the name of the input, float32 [B, C, H, W] RGB, any B; a pixel x in 0..255 enters as
    (x - pixel_mean) / pixel_std. image_shape: [C, H, W]. outputs: what comes out, in order: "embedding"
    [B, embedding_size], then "scores" [B, num_classes] if the classifier was exported (num_classes else None).
    l2_normalised: embeddings have length 1. flip_fused: the embedding is the mean of those of the image and of its
    mirror image (before it is normalised). models: {"paddle": [program file, weights file], "onnx": [file]}, those
    that are there. files: {name: {"bytes", "sha256"}}, with that of the class names if there are names.
    step: training steps of the checkpoint; checkpoint: its identity. agreement: how far the outputs were from the
    training program's when the model was exported.
    """

    plsc_version: str
    paddle_version: str
    step: int
    checkpoint: str
    input_name: str
    image_shape: list[int]
    pixel_mean: float
    pixel_std: float
    embedding_size: int
    num_classes: int | None
    l2_normalised: bool
    flip_fused: bool
    outputs: list[str]
    models: dict[str, list[str]]
    files: dict[str, dict[str, Any]]
    agreement: dict[str, Any]

    def to_bytes(self) -> bytes:
        """JSON, indented for readers."""
        data = {"format": FORMAT, "version": VERSION, "channels": "RGB", "layout": "NCHW", "dtype": "float32"}
        return (json.dumps({**data, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n").encode()

    @property
    def identity(self) -> str:
        """The same for the same files and never for others."""
        return " ".join(sorted(entry["sha256"] for entry in self.files.values()))


def is_exported(path: str) -> bool:
    """Whether a directory holds a description of an exported model."""
    return os.path.isfile(os.path.join(path, DESCRIPTION))


def read_description(path: str) -> Description:
    """The description in the directory ``path``. Raises ExportError, naming the file."""
    name = os.path.join(path, DESCRIPTION)
    try:
        data = plain_json.loads(safe_open.read_bytes(name, safe_open.SETTINGS))
    except OSError as error:
        raise ExportError(
            f"{name}: {error.strerror}; give the directory that `plsc export` or convert_for_prediction() wrote"
        ) from None
    except ValueError as error:
        raise ExportError(f"{name}: damaged, {error}; export the model again") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ExportError(f"{name}: does not describe a model that PLSC exported")
    if data.get("version") != VERSION:
        raise ExportError(f"{name}: version {data.get('version')!r:.40} is unknown, this PLSC reads {VERSION}")
    missing = [field.name for field in dataclasses.fields(Description) if field.name not in data]
    if missing:
        raise ExportError(f"{name}: damaged, lacks {', '.join(missing)}; export the model again")
    description = Description(**{field.name: data[field.name] for field in dataclasses.fields(Description)})
    _check(name, description)
    return description


def _check(name: str, found: Description) -> None:
    """The fields that decide which files are opened and how numbers are read. Raises ExportError."""
    files_good = isinstance(found.files, dict) and all(_is_file(*item) for item in found.files.items())
    models_good = files_good and isinstance(found.models, dict) and found.models and all(
        kind in KINDS and _are_files_of(kind, files) and set(files) <= set(found.files)
        for kind, files in found.models.items()
    )  # fmt: skip
    classes = found.num_classes
    for field, good in (
        ("image_shape", _is_shape(found.image_shape)),
        ("pixel_mean", type(found.pixel_mean) in (int, float)),
        ("pixel_std", type(found.pixel_std) in (int, float) and 1e-6 < found.pixel_std < 1e6),
        ("embedding_size", _is_count(found.embedding_size, 65536)),
        ("num_classes", classes is None or _is_count(classes, 2**31 - 1)),
        ("step", type(found.step) is int and found.step >= 0),
        ("input_name", isinstance(found.input_name, str) and found.input_name.isprintable()),
        ("files", files_good),
        ("models", models_good),
        ("outputs", found.outputs == (["embedding"] if classes is None else ["embedding", "scores"])),
        ("agreement", isinstance(found.agreement, dict)),
    ):
        if not good:
            raise ExportError(f"{name}: damaged at {field}; export the model again")


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_shape(shape: Any) -> bool:
    good = isinstance(shape, list) and len(shape) == 3 and all(_is_count(side, 16384) for side in shape)
    return good and math.prod(shape) <= 2**28


def _is_file(name: str, entry: Any) -> bool:
    """Whether it is a plain name beside the description, with what is known of the file."""
    plain = name.isprintable() and os.path.basename(name) == name and name not in ("", ".", "..")
    good = plain and isinstance(entry, dict) and {"bytes", "sha256"} <= set(entry)
    return good and type(entry["bytes"]) is int and isinstance(entry["sha256"], str)


def _are_files_of(kind: str, files: Any) -> bool:
    """Whether they are those that a runtime takes, in its order: it may crash over others."""
    if not isinstance(files, list) or len(files) != len(ENDINGS[kind]):
        return False
    return all(isinstance(file, str) and file.endswith(ends) for file, ends in zip(files, ENDINGS[kind]))


def check_files(path: str, description: Description, kind: str) -> list[str]:
    """The files of one kind of model, by their full paths, unchanged since the export. Raises ExportError."""
    found = []
    for name in description.models[kind]:
        file, entry = os.path.join(path, name), description.files[name]
        try:
            if os.path.getsize(file) != entry["bytes"] or hash_file(file) != entry["sha256"]:
                raise ExportError(f"{file}: is not the file that was exported: damaged or exchanged; export again")
        except OSError as error:
            raise ExportError(f"{file}: {error.strerror}; export the model again") from None
        found.append(file)
    return found


def read_class_names(path: str, description: Description) -> list[str] | None:
    """The names of the classes, by label; None where the model has none. Raises ExportError."""
    entry, file = description.files.get(CLASS_NAMES), os.path.join(path, CLASS_NAMES)
    if entry is None or description.num_classes is None:
        return None
    try:
        return class_names.read(file, FileEntry(entry["bytes"], entry["sha256"]), description.num_classes)
    except OSError as error:
        raise ExportError(f"{file}: {error.strerror}; export the model again") from None
    except ValueError as error:
        raise ExportError(f"{file}: {error}; export the model again") from None


def describe_files(path: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """{name: size and SHA-256} of files in the directory ``path``."""
    entries = {name: measure_file(os.path.join(path, name)) for name in names}
    return {name: {"bytes": entry.num_bytes, "sha256": entry.sha256} for name, entry in entries.items()}
