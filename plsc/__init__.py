"""PLSC: large-scale classification on PaddlePaddle. `from plsc import Entry` is the usual way in.

Importing the package does nothing else: no Paddle, no environment, no files. The public names are loaded on first use.
"""

from __future__ import annotations

import importlib

from plsc.backend.paddle_version import load_zlib
from plsc.version import __version__

load_zlib()

_HOMES = {"Entry": "plsc.entry", "LargeScaleClassifier": "plsc.classifiers", "Predictor": "plsc.serving"}

__all__ = ["Entry", "LargeScaleClassifier", "Predictor", "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'plsc' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
