"""`plsc export --to safetensors`: the backbone of a checkpoint as a safetensors file with a model card.

The tensors are those of the checkpoint, to the bit and by their names, without momentum and class centres; where it
has averages (ema.decay), these take the place of the weights, unless the weights of the last step are asked for. Needs
neither Paddle nor torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.checkpoint.averages import AUTO
from plsc.checkpoint.tensor_file import write_tensors
from plsc.checkpoint.tensors import TensorSpec
from plsc.engine.inference import output_dir
from plsc.engine.weights.description import describe_weights
from plsc.engine.weights.model_card import model_card
from plsc.errors import CheckpointError, ExportError
from plsc.files import plain_json, safe_open
from plsc.files.hashes import write_new
from plsc.serving.description import DESCRIPTION
from plsc.version import __version__

DIRECTORY, WEIGHTS, CARD = "safetensors", "model.safetensors", "README.md"
PREFIX = "backbone."
SCALARS = "scalars.jsonl"


def export_safetensors(checkpoint_dir: str, model_save_dir: str, licence: str, which: str = AUTO) -> str:
    """Write the weights, the card and plsc.json to ``model_save_dir``/safetensors; returns the directory.

    which: the setting ema.weights. Raises CheckpointError, and ExportError, then an earlier export stays.
    """
    path = checkpoint.resolve(checkpoint_dir)
    manifest = checkpoint.read_manifest(path)
    final = os.path.join(os.path.abspath(model_save_dir), DIRECTORY)
    output_dir.check_free(final, DESCRIPTION)
    card = _Card(*_averaged(path, manifest, which), licence)
    try:
        _write(path, manifest, card, output_dir.create_unfinished(final))
        output_dir.publish(final)
    except OSError as error:
        raise ExportError(f"{error.filename or final}: cannot be written: {error.strerror}") from None
    return final


@dataclass(frozen=True)
class _Card:
    """averaged: whether the weights are the averages. results: {set: {metric: number}} of these weights."""

    averaged: bool
    results: dict[str, dict[str, float]]
    licence: str


def _averaged(path: str, manifest: Manifest, which: str) -> tuple[bool, dict[str, dict[str, float]]]:
    """Whether the averages are exported; and the recorded results, none where they are those of the other weights."""
    averaged = checkpoint.uses_averages(path, manifest, which)
    recorded = manifest.config.get("ema")
    of_run = recorded.get("weights", AUTO) if isinstance(recorded, dict) else AUTO
    results = read_results(path, manifest.step)
    return averaged, results if averaged == checkpoint.uses_averages(path, manifest, of_run) else {}


def _write(path: str, manifest: Manifest, about: _Card, where: str) -> None:
    stored = checkpoint.read_weights(path, manifest, checkpoint.AVERAGED if about.averaged else checkpoint.LAST)
    arrays = {name: array for name, array in stored.items() if name.startswith(PREFIX)}
    if not arrays:
        raise CheckpointError(f"{path}: holds no tensor of a backbone")
    specs = [TensorSpec.of(name, array) for name, array in arrays.items()]
    blocks = ((name, 0, array) for name, array in arrays.items())
    files = {WEIGHTS: write_tensors(os.path.join(where, WEIGHTS), specs, blocks, {"plsc_version": __version__})}
    card = model_card(manifest, WEIGHTS, specs, about.results, about.licence, about.averaged)
    files[CARD] = write_new(os.path.join(where, CARD), card.encode())
    model = manifest.config.get("model", {})
    write_new(os.path.join(where, DESCRIPTION), describe_weights(manifest, model, files))


def read_results(path: str, step: int) -> dict[str, dict[str, float]]:
    """{set: {metric: number}} that the run of a checkpoint recorded at its step, none without a record.

    The record is in the run's directory, or that of the run whose best checkpoint it is. Raises ExportError.
    """
    run = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    found: dict[str, dict[str, float]] = {}
    for file in (os.path.join(run, SCALARS), os.path.join(os.path.dirname(run), SCALARS)):
        try:
            with safe_open.open_text(file, safe_open.LIST) as lines:
                for line in lines:
                    values = plain_json.loads(line)
                    if isinstance(values, dict) and values.get("step") == step and isinstance(values.get("test"), str):
                        found[values["test"]] = _numbers(values)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ExportError(f"{file}: {error.strerror}; no results can be read for the model card") from None
        except ValueError as error:
            raise ExportError(f"{file}: damaged, {error}; move it away to export without results") from None
        break
    return found


def _numbers(values: dict) -> dict[str, float]:
    tar = values.get("tar_at_far")
    found = {**values, **({f"tar@{far}": one for far, one in tar.items()} if isinstance(tar, dict) else {})}
    return {name: one for name, one in found.items() if type(one) in (int, float) and name != "step"}
