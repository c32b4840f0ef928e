"""An exported model in use: pictures of any kind in, embeddings and scores out. Needs Paddle or ONNX Runtime."""

from __future__ import annotations

from plsc.serving.description import DESCRIPTION, Description, is_exported, read_description
from plsc.serving.gallery import Gallery, Matches
from plsc.serving.pictures import RESIZES, find_pictures, resized
from plsc.serving.predictor import Predictor

__all__ = [
    "DESCRIPTION",
    "RESIZES",
    "Description",
    "Gallery",
    "Matches",
    "Predictor",
    "find_pictures",
    "is_exported",
    "read_description",
    "resized",
]
