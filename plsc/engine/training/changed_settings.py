"""Says with which settings of training a run goes on other than its checkpoint was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plsc.checkpoint import Manifest
from plsc.config import OPTIONS
from plsc.config.extensions import SCHEDULE, value_of
from plsc.engine.run.start import Run
from plsc.signatures import accepted

_SECTIONS = ("lr_schedule.", "optimizer.", "class_optimizer.", "classifier.", "mixed_precision.")
_KEYS = ("lr", "lr_factors", "lr_layer_decay", "lr_reference_batch", "momentum", "weight_decay", "grad_clip_norm",
         "train_batch_size", "accumulate", "ema.decay", "ema.warmup")  # fmt: skip
_OTHERS = ("classifier.num_classes", "classifier.compiled", "classifier.storage", "classifier.model_parallel")
_LENGTHS = ("train_steps", "train_epochs")


def log_changed_settings(run: Run, path: str, manifest: Manifest) -> None:
    """A line for each setting that changes the steps of the run from here on. Its length is one of them where the
    learning rate depends on it: the rate then jumps. What a checkpoint does not store had its default."""
    settings = run.config.settings
    keys = [key for key in OPTIONS if (key in _KEYS or key.startswith(_SECTIONS)) and key not in _OTHERS]
    own_optimizer = run.user_objects.optimizer is not None  # with its own learning rate
    by_length = not own_optimizer and accepted(SCHEDULE.chosen(settings), ("total_steps",), SCHEDULE.by_place)
    for key in [*keys, *(_LENGTHS if by_length else ())]:
        before, now = _stored(manifest.config, key), value_of(settings, key)
        if before == now:
            continue
        also = f", which changes the learning rate of all steps ({SCHEDULE.key}: {settings.lr_schedule.kind})"
        run.log.info(
            f"{path} was trained with {key}={_text(key, before)}, this run continues with {_text(key, now)}"
            f"{also if key in _LENGTHS else ''}"
        )


def _stored(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in a checkpoint's settings, its default where it has none."""
    value: Any = config
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return OPTIONS[key].default
        value = value[name]
    return value


def _text(key: str, value: Any) -> str:
    return f"{OPTIONS[key].format_value(value)!s:.200}"
