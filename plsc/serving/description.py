"""`plsc.json`, the description of an exported model: its input, outputs and files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from typing import Any

from plsc.config import RESIZE_MODES
from plsc.errors import ExportError
from plsc.files import class_names, plain_json, safe_open
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import FileEntry, file_entry, hash_file

DESCRIPTION = "plsc.json"
FORMAT, VERSION = "plsc-exported-model", 1
WEIGHTS_FORMAT = "plsc-exported-weights"  # of weights alone, which no runtime can run
# The suffixes of a model's files, in the order of the arguments of its runtime.
ENDINGS: dict[str, list[tuple[str, ...]]] = {"paddle": [(".pdmodel", ".json"), (".pdiparams",)], "onnx": [(".onnx",)]}
KINDS = tuple(ENDINGS)


@dataclass(frozen=True)
class Description:
    """The facts that a program needs to run an exported model.

    input_name: the name of the input, float32 [B, C, H, W] RGB, any B; a pixel x in 0..255 is fed as
    (x - pixel_mean) / pixel_std. image_shape: [C, H, W]. outputs: the names of the outputs, in order: "embedding"
    [B, embedding_size], then "scores" [B, num_classes] if the classifier was exported (else num_classes is None).
    l2_normalised: embeddings have length 1. flip_fused: the embedding is the mean of the embeddings of the image and
    its mirror image, before normalization. models: {"paddle": [program file, weights file], "onnx": [file]}, the
    exported ones. files: {name: {"bytes", "sha256"}}, including the file of class names if there is one.
    step: training steps of the checkpoint; checkpoint: its identity. agreement: the difference between the outputs of
    the exported model and of the training program, measured at the export. resize: how training treated images of
    another size (see plsc.data.resize); None if unknown.
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
    resize: str | None = None  # earlier models lack it

    def to_bytes(self) -> bytes:
        """JSON, indented for readers."""
        data = {"format": FORMAT, "version": VERSION, "channels": "RGB", "layout": "NCHW", "dtype": "float32"}
        return (json.dumps({**data, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n").encode()

    @property
    def identity(self) -> str:
        """A text that is equal only for equal files."""
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
    if isinstance(data, dict) and data.get("format") == WEIGHTS_FORMAT:
        raise ExportError(f"{name}: describes weights without a program, which cannot be run; give their checkpoint")
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ExportError(f"{name}: does not describe a model exported by PLSC")
    if data.get("version") != VERSION:
        raise ExportError(f"{name}: version {data.get('version')!r:.40} is unknown, this PLSC reads {VERSION}")
    fields = dataclasses.fields(Description)
    missing = [field.name for field in fields if field.name not in data and field.default is dataclasses.MISSING]
    if missing:
        raise ExportError(f"{name}: damaged, lacks {', '.join(missing)}; export the model again")
    description = Description(**{field.name: data[field.name] for field in fields if field.name in data})
    _check(name, description)
    return description


def _check(name: str, found: Description) -> None:
    """Check the fields on which opened files and the format of numbers depend. Raises ExportError."""
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
        ("resize", found.resize is None or found.resize in RESIZE_MODES),
    ):
        if not good:
            raise ExportError(f"{name}: damaged at {field}; export the model again")


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_shape(shape: Any) -> bool:
    good = isinstance(shape, list) and len(shape) == 3 and all(_is_count(side, 16384) for side in shape)
    return good and math.prod(shape) <= 2**28


def _is_file(name: str, entry: Any) -> bool:
    """Whether ``name`` is a path below the directory, with slashes, and ``entry`` has size and hash."""
    parts = name.split("/")
    plain = name.isprintable() and len(parts) <= 3 and not {"", ".", ".."} & set(parts)
    good = plain and isinstance(entry, dict) and {"bytes", "sha256"} <= set(entry)
    return good and type(entry["bytes"]) is int and isinstance(entry["sha256"], str)


def _are_files_of(kind: str, files: Any) -> bool:
    """Whether the files have the suffixes of a runtime, in its order: it may crash on other files."""
    if not isinstance(files, list) or len(files) != len(ENDINGS[kind]):
        return False
    return all(isinstance(file, str) and file.endswith(ends) for file, ends in zip(files, ENDINGS[kind]))


def check_files(path: str, description: Description, kind: str) -> list[str]:
    """Return the paths of the files of one kind of model. Raises ExportError if a file changed since the export."""
    found = []
    for name in description.models[kind]:
        file, entry = os.path.join(path, name), description.files[name]
        try:
            if os.path.getsize(file) != entry["bytes"] or hash_file(file) != entry["sha256"]:
                raise ExportError(
                    f"{file}: differs from the exported file: damaged or replaced; export the model again"
                )
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
    entries = {name: file_entry(os.path.join(path, name)) for name in names}
    return {name: {"bytes": entry.num_bytes, "sha256": entry.sha256} for name, entry in entries.items()}
