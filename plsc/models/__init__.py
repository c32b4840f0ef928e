"""Backbones: image [B, C, H, W] -> feature [B, E]. Importing needs no Paddle; building a network does."""

from __future__ import annotations

from plsc.models.base_model import BaseModel, InputField, build_feature
from plsc.models.checks import require_same_parameters
from plsc.models.registry import build_model, list_models, register_model

__all__ = [
    "BaseModel",
    "InputField",
    "build_feature",
    "build_model",
    "list_models",
    "register_model",
    "require_same_parameters",
]
