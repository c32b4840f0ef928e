"""Compares an exported model with the trained one, before the export becomes visible."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from plsc.config import Config
from plsc.data import ImageReader, normalise, unsupported_channels
from plsc.data.opening import open_source
from plsc.engine.evaluation import left_open
from plsc.engine.program.trained_backbone import TrainedBackbone
from plsc.errors import ExportError, PlscError
from plsc.evaluation.embeddings import normalize
from plsc.serving import Predictor, find_images

IMAGES = 8
# Of the length of an embedding. Float32 sums of some 5000 terms in another order differ by 1e-6 to 1e-5.
TOLERANCE = 1e-4


def compare(
    config: Config,
    backbone: TrainedBackbone,
    classes,
    runtimes: Iterable[str],
    open_predictor: Callable[[str], Predictor],
) -> dict[str, Any]:
    """How far the exported models are from the trained one, and from each other, on up to 8 images.

    runtimes: "paddle", "onnx" or both. open_predictor(runtime): the exported model in that runtime.
    Returns {"images": how many and which, "paddle", "onnx", "between": the largest |difference| / |embedding|}, and
    "scores" in the same way. Raises ExportError where one is above TOLERANCE, or a runtime fails.
    """
    images, kind = check_images(config)
    expected = trained_outputs(config, backbone, classes, images)
    agreement: dict[str, Any] = {"images": f"{len(images)} {kind}", "tolerance": TOLERANCE}
    found = {}
    for runtime in runtimes:
        predictor = open_predictor(runtime)
        try:
            found[runtime] = predictor.run(images * (config.data.pixel_std / predictor.description.pixel_std))
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[-300:]
            raise ExportError(
                f"the exported model does not run in {runtime}: {reason}; nothing was exported"
            ) from error
        agreement[runtime] = distance(runtime, "the trained model", found[runtime], expected)
    if len(found) == 2:
        agreement["between"] = distance("onnx", "paddle", found["onnx"], found["paddle"])
    return agreement


def check_images(config: Config) -> tuple[np.ndarray, str]:
    """(images float32 [8 or fewer, C, H, W], "images" or "random images"): those of ``export.images``, else of the
    training data, else random pixels."""
    channels, height, width = config.model.image_shape
    if config.export.images:
        paths, _ = find_images(config.export.images)
        chosen = [(paths[i], paths[i]) for i in _spread(len(paths))]
    else:
        chosen = [] if unsupported_channels(channels) else _training_images(config)
    if chosen:
        read = ImageReader.from_config(config, "stretch")  # the same images for both, be it other ones than trained on
        pixels = [read(image, name) for image, name in chosen]
        return np.stack([normalise(image, config.data.pixel_std) for image in pixels]), "images"
    draw = np.random.Generator(np.random.Philox(key=[0, 0]))
    pixels = draw.integers(0, 256, (IMAGES, height, width, channels), dtype=np.uint8)
    return np.stack([normalise(image, config.data.pixel_std) for image in pixels]), "random images"


def _training_images(config: Config) -> list[tuple[Any, str]]:
    """[(image, its name)], up to 8 that the data source reads; none where its data are not on this machine, or where
    it generates the input of the model itself."""
    config = config.copy()
    try:
        left_open.settle_source(config, [])
        source = open_source(config, seed=0)
        count = len(source)
    except (PlscError, OSError):
        return []
    if source.ready:
        return []
    source.open_files()
    return [(source.read(index)[0], source.name(index)) for index in _spread(count)]


def _spread(count: int) -> list[int]:
    """Up to IMAGES different places below ``count``, evenly spaced."""
    return [int(place) for place in np.unique(np.linspace(0, count - 1, min(IMAGES, count)).astype(int))]


def trained_outputs(config: Config, backbone: TrainedBackbone, classes, images: np.ndarray) -> list[np.ndarray]:
    """The expected outputs: features by the evaluation program of the training, the rest in float64."""
    feature = backbone.features(images).astype(np.float64)
    if config.export.fuse_flip:
        feature = (feature + backbone.features(np.ascontiguousarray(images[:, :, :, ::-1]))) / 2
    outputs = [normalize(feature) if config.export.l2_normalise else feature]
    if classes is not None:
        given = normalize(feature) if classes.bias is None else feature
        bias = 0.0 if classes.bias is None else classes.bias
        scores = (given @ classes.centres.astype(np.float64).T * classes.scale).reshape(len(given), classes.number, -1)
        outputs.append(scores.max(axis=2) + bias)
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
