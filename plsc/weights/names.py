"""The names that users give: kinds of files, orders of channels. Imports nothing, for the command line."""

from __future__ import annotations

ARCFACE, ADAFACE, MAGFACE, PLSC24, ONNX = "arcface_torch", "adaface", "magface", "plsc2.4", "onnx"
KIND_NAMES = (ARCFACE, ADAFACE, MAGFACE, PLSC24, ONNX)
RGB, BGR = "RGB", "BGR"
