"""Inference with exported models: images in, embeddings and scores out. Needs Paddle or ONNX Runtime."""

from __future__ import annotations

from plsc.serving.classification import TopClasses
from plsc.serving.description import DESCRIPTION, Description, is_exported, read_description
from plsc.serving.gallery import Gallery, Matches
from plsc.serving.images import find_images
from plsc.serving.predictor import Predictor

__all__ = [
    "DESCRIPTION",
    "Description",
    "Gallery",
    "Matches",
    "Predictor",
    "TopClasses",
    "find_images",
    "is_exported",
    "read_description",
]
