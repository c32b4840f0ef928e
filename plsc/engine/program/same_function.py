"""Would a built-in model of this run compute what it did with the weights of a checkpoint?"""

from __future__ import annotations

from plsc.checkpoint import Manifest
from plsc.config.format_value import format_value
from plsc.engine.program.build import make_model
from plsc.engine.run.start import Run
from plsc.errors import CheckpointError
from plsc.models import build_model
from plsc.models.layers import BuiltInModel


def require_same_function(run: Run, path: str, manifest: Manifest) -> None:
    """Raise CheckpointError, on every rank, if a built-in model has other options than in the checkpoint ``path``.

    Options that do not change names and shapes of weights, such as the epsilon of batch norm, change its features.
    """
    model, stored = make_model(run.config, run.user_objects), manifest.config.get("model")
    if not isinstance(model, BuiltInModel) or not isinstance(stored, dict) or stored.get("name") != model.name:
        return
    options = stored.get("options")
    found = build_model(model.name, **options if isinstance(options, dict) else {})
    if not isinstance(found, BuiltInModel) or found.function_options() != model.function_options():
        raise CheckpointError(
            f"cannot use {path}: its model has model.options: {format_value(options or {})}, with which the same "
            f"weights give other features than with {format_value(run.config.model.options)}; set model.options to the "
            "first"
        )
