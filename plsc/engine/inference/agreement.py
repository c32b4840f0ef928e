"""Does an exported model give what the trained one gives? Asked before anybody can use it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.data import decode_image, normalise, unsupported_channels
from plsc.engine.program.trained_backbone import TrainedBackbone
from plsc.errors import ExportError
from plsc.evaluation.embeddings import normalize
from plsc.parallel.environment import Environment
from plsc.serving import Predictor, find_images, resize_image
from plsc.serving.description import Description

IMAGES = 8
# Of the length of an embedding. Float32 sums of some 5000 terms in another order differ by 1e-6 to 1e-5.
TOLERANCE = 1e-4


def compare(
    config: Config,
    backbone: TrainedBackbone,
    classes,
    where: str,
    description: Description,
    env: Environment,
    threads: int,
) -> dict[str, Any]:
    """How far the exported models in ``where`` are from the trained one, and from each other, on up to 8 images.

    Returns {"images": how many and which, "paddle", "onnx", "between": the largest |difference| / |embedding|}, and
    "scores" in the same way. Raises ExportError where one is above TOLERANCE, or a runtime fails.
    """
    images, kind = check_images(config)
    expected = trained_outputs(config, backbone, classes, images)
    agreement: dict[str, Any] = {"images": f"{len(images)} {kind}", "tolerance": TOLERANCE}
    found = {}
    for model in description.models:
        predictor = Predictor(where, model, device=env.device, threads=threads, card=env.device_id)
        try:
            found[model] = predictor.run(images)
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[-300:]
            raise ExportError(f"the exported model does not run in {model}: {reason}; nothing was exported") from error
        agreement[model] = distance(model, "the trained net", found[model], expected)
    if len(found) == 2:
        agreement["between"] = distance("onnx", "paddle", found["onnx"], found["paddle"])
    return agreement


def check_images(config: Config) -> tuple[np.ndarray, str]:
    """(images float32 [8 or fewer, C, H, W], "pictures" or "random images"): those of ``export.images``, else of the
    training list, else random pixels."""
    channels, height, width = config.model.image_shape
    trained = os.path.join(config.data.dataset_dir, config.data.label_file)
    if unsupported_channels(channels):
        trained = ""
    if config.export.images or (config.data.dataset == "list" and os.path.isfile(trained)):
        paths, _ = find_images(config.export.images or trained)
        chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, IMAGES).astype(int))]
        pixels = [
            resize_image(decode_image(path, channels=channels), height, width, "stretch", path) for path in chosen
        ]
        return np.stack([normalise(image, config.data.pixel_std) for image in pixels]), "pictures"
    draw = np.random.Generator(np.random.Philox(key=[0, 0]))
    pixels = draw.integers(0, 256, (IMAGES, height, width, channels), dtype=np.uint8)
    return np.stack([normalise(image, config.data.pixel_std) for image in pixels]), "random images"


def trained_outputs(config: Config, backbone: TrainedBackbone, classes, images: np.ndarray) -> list[np.ndarray]:
    """What should come out: features by the evaluation program of the training, all that follows in float64."""

    feature = backbone.features(images).astype(np.float64)
    if config.export.fuse_flip:
        feature = (feature + backbone.features(np.ascontiguousarray(images[:, :, :, ::-1]))) / 2
    outputs = [normalize(feature) if config.export.l2_normalise else feature]
    if classes is not None:
        given = normalize(feature) if classes.bias is None else feature
        bias = 0.0 if classes.bias is None else classes.bias
        outputs.append(given @ classes.centres.astype(np.float64).T * classes.scale + bias)
    return outputs


def distance(what: str, other: str, found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest of |difference| / |expected| over rows and outputs: lists of arrays [N, size].

    what, other: for messages. Raises ExportError above TOLERANCE, or for other shapes.
    """
    shapes = [list(array.shape) for array in found], [list(array.shape) for array in expected]
    if shapes[0] != shapes[1]:
        raise ExportError(f"the exported model gives {shapes[0]} in {what} and {shapes[1]} in {other}")
    distances = []
    for a, b in zip(found, expected):
        length = np.linalg.norm(b.astype(np.float64), axis=1)
        distances.append(np.linalg.norm(a.astype(np.float64) - b, axis=1) / np.maximum(length, 1e-6))
    worst = float(np.max(distances))
    if not worst <= TOLERANCE:  # also where it is NaN
        raise ExportError(
            f"the exported model differs from {other} by {worst:.1e} of an embedding's length in {what}, more than "
            f"{TOLERANCE:.0e}; it is not used"
        )
    return worst
