"""The model card of exported weights: Markdown with the fields of Hugging Face's cards at its head.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from plsc.checkpoint import Manifest
from plsc.checkpoint.tensors import TensorSpec
from plsc.data.transforms import PIXEL_MEAN

UNKNOWN = "unknown"  # Hugging Face's own word
_AVERAGED = " They are the averages over the steps of training (ema.decay), not the weights of the last step."
_LENGTH = 200  # characters of a value
_LOAD = """```python
from safetensors.numpy import load_file

weights = load_file("{file}")  # {{name: array}}
```
"""


def model_card(
    manifest: Manifest, file: str, specs: list[TensorSpec], results: Mapping[str, Mapping[str, float]], licence: str,
    averaged: bool = False,
) -> str:  # fmt: skip
    """The text of the card.

    file, specs: of the weights. results: {set: {metric: number}} at the step of the checkpoint. licence: an SPDX name,
    or UNKNOWN. averaged: the weights are the averages of a run with ema.decay.
    """
    settings = manifest.config
    model, numbers = _part(settings, "model"), sum(_size(spec) for spec in specs)
    head = {"license": licence, "library_name": "plsc", "pipeline_tag": "image-feature-extraction"}
    name = f"{model.get('name', 'a model of your own')}, {manifest.embedding_size} numbers"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {_text(name)}",
        f"The backbone of a classifier of {manifest.num_classes:,} classes, trained with PLSC {manifest.plsc_version}, "
        f"step {manifest.step:,}. The class centres are not included.",
        "## Model", _table([*model.items(), ("parameters and statistics", f"{numbers:,}")]),
        "## Input", _table(_input(settings, model)),
        "## Training data", _table(_data(manifest)),
        "## Recipe", _table(_recipe(manifest)),
        "## Results", _results(results),
        "## Licence", _licence(licence),
        "## Weights",
        f"`{file}`: {len(specs)} tensors, in the safetensors format, by the names of PLSC's checkpoints. "
        f"`plsc.json` has its SHA-256.{_AVERAGED if averaged else ''}\n\n" + _LOAD.format(file=file),
    ]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _part(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = settings.get(name)
    return dict(part) if isinstance(part, Mapping) else {}


def _size(spec: TensorSpec) -> int:
    return spec.num_bytes // spec.numpy_dtype.itemsize


def _input(settings: Mapping[str, Any], model: Mapping[str, Any]) -> list[tuple[str, Any]]:
    std = _part(settings, "data").get("pixel_std")
    return [
        ("shape", " x ".join(["batch", *map(str, model.get("image_shape") or [])])),
        ("channels", "RGB, or grey"),
        ("a pixel x of 0..255", f"(x - {PIXEL_MEAN:g}) / {std}"),
        ("images of another size", _part(settings, "data").get("resize")),
    ]


def _data(manifest: Manifest) -> list[tuple[str, Any]]:
    """The record of the data, but for the sample of paths; and the augmentations."""
    given = _part(manifest.config, "data")
    record = [(key, value) for key, value in manifest.data.items() if key != "sample"]
    directory = os.path.basename(os.path.normpath(str(given.get("dataset_dir") or "")))
    of_run = [("directory", "" if directory == "." else directory), ("augmentations", given.get("augmentations"))]
    return [*(record or [("record", UNKNOWN)]), *of_run]


def _recipe(manifest: Manifest) -> list[tuple[str, Any]]:
    settings = manifest.config
    batch = ("train_batch_size", "accumulate")
    alone = (*batch, "lr", "lr_reference_batch", "momentum", "weight_decay", "grad_clip_norm", "seed")
    found = [("ranks", manifest.world_size), *((key, settings.get(key)) for key in alone)]
    found += [("mixed precision", _part(settings, "mixed_precision").get("enabled"))]
    for section in ("optimizer", "lr_schedule", "classifier"):
        found += [(f"{section}.{key}", value) for key, value in _part(settings, section).items()]
    return [*found, ("PaddlePaddle", manifest.paddle_version)]


def _results(results: Mapping[str, Mapping[str, float]]) -> str:
    if not results:
        return "No metrics were recorded at this step."
    rows = [(name, metric, f"{value:.6g}") for name, found in results.items() for metric, value in found.items()]
    return _rows(("set", "metric", "value"), rows)


def _licence(licence: str) -> str:
    if licence == UNKNOWN:
        return "None was stated. The licence of the training data may restrict the use of the weights."
    return f"{_text(licence)}. The licence of the training data may restrict the use of the weights further."


def _table(values: Iterable[tuple[str, Any]]) -> str:
    """Two columns; what is not set is left out."""
    return _rows(("", ""), [(key, value) for key, value in values if value not in (None, "", {}, [])])


def _rows(head: tuple[str, ...], rows: Iterable[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _text(value: Any) -> str:
    """A value on one line, with what Markdown and HTML would take for their own escaped."""
    text = " ".join(str(value).split())
    text = text if len(text) <= _LENGTH else text[: _LENGTH - 3] + "..."
    for mark in "\\`*[]<|":
        text = text.replace(mark, "\\" + mark)
    return text
