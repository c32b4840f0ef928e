"""Every setting of a run: one typed schema, checked values, YAML in and out."""

from __future__ import annotations

from plsc.config.config import Config
from plsc.config.keys import OLD_NAMES, OPTIONS, SECTIONS, fields, nearest
from plsc.config.option import Option
from plsc.config.schema import EXCLUSIVE, Settings
from plsc.config.schema.data import DECODERS, RESIZE_MODES, SYNTHETIC_IMAGES

__all__ = [
    "DECODERS", "EXCLUSIVE", "OLD_NAMES", "OPTIONS", "RESIZE_MODES", "SECTIONS", "SYNTHETIC_IMAGES", "Config", "Option",
    "Settings", "fields", "nearest",
]  # fmt: skip
