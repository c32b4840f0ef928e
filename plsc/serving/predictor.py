"""`Predictor`: embeddings of images, by an exported model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
from PIL import Image

from plsc.config import DECODERS, RESIZE_MODES
from plsc.data import ImageReader, normalise
from plsc.data.jpeg import open_jpeg_decoder
from plsc.errors import ConfigError, DataError, ExportError
from plsc.parallel.environment import cores
from plsc.serving.classification import TopClasses, top_classes
from plsc.serving.description import Description, read_class_names, read_description
from plsc.serving.gallery import Gallery, Matches, cosines
from plsc.serving.runtimes import RuntimeOptions, open_runtime
from plsc.terminal import open_standard_streams

log = logging.getLogger("plsc.serving")

UNKNOWN_RESIZE = "stretch"  # for models that do not say it: as earlier versions of PLSC did
CALLERS = 2
NO_CLASSIFIER = "was exported without its classes; set export.with_classifier: true"

MAX_BATCH, MAX_THREADS = 1_000_000, 1024


class Predictor:
    """Runs an exported model on images.

    model_dir: the directory that `convert_for_prediction()` or `plsc export` wrote. runtime: "paddle" (Paddle
    Inference), "onnx" (ONNX Runtime), or "auto": the first of them that was exported and is installed. resize: for
    images of another size than the model's input: "refuse", "stretch", "crop" or "pad" (see
    plsc.data.resize.resize_image); None means as in training (`data.resize`), or "stretch" for a model exported by an
    earlier PLSC, whose description lacks it. With None, the logger "plsc.serving" warns of the first resized image.
    device: "cpu", "gpu", or "auto": a GPU if there is one; card: its number. threads: CPU threads for a batch; 0 means
    one for each core that this process may use. decoder: of JPEG images, as `data.decoder`; the pixels are the same.

    A Predictor may be used by any number of threads at once. callers: how many of them Paddle Inference serves in
    parallel, each with its own memory for a batch, and on Paddle 3 its own weights; 0 means one per core, at most 2.
    Other threads wait. `close()`, or leaving a `with` block, frees the model: running batches finish, later calls raise
    ExportError. A fork cannot use the Predictor of its parent (ExportError): open one in each process.

    class_names: the names of the classes, by label, if the model was exported with its classifier and the training
    data had names; else None.

    An image is a path, encoded bytes, a PIL image, or pixels: an array uint8 or uint16 [H, W] or [H, W, 3] in RGB.
    Raises ExportError for a model that cannot be opened, ConfigError for a wrong argument; the methods raise DataError
    for an image that cannot be read.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike,
        runtime: str = "auto",
        batch_size: int = 32,
        resize: str | None = None,
        device: str = "auto",
        threads: int = 0,
        card: int = 0,
        callers: int = 0,
        decoder: str = "auto",
    ):
        good = 1 <= batch_size <= MAX_BATCH and 0 <= threads <= MAX_THREADS and 0 <= callers <= MAX_THREADS
        if resize not in (None, *RESIZE_MODES) or not good or not 0 <= card < MAX_THREADS:
            raise ConfigError(
                f"Predictor: resize={resize!r:.40}, batch_size={batch_size}, threads={threads}, callers={callers}, "
                f"card={card}; allowed: resize {', '.join(RESIZE_MODES)}; batch_size 1 to {MAX_BATCH:,}; "
                f"the others 0 to {MAX_THREADS:,}"
            )
        if decoder not in DECODERS:
            raise ConfigError(f"Predictor: decoder={decoder!r:.40}; allowed: {', '.join(DECODERS)}")
        open_standard_streams()
        path = os.fspath(model_dir)
        self.description = read_description(path)
        self._path, self._batch_size = path, batch_size
        self._read = _image_reader(self.description, resize, decoder)
        self._warns = resize is None
        self.class_names = read_class_names(path, self.description)
        callers = callers or min(CALLERS, cores())
        options = RuntimeOptions(threads or cores(), device, card, callers)
        self._runtime = open_runtime(path, self.description, runtime, options)

    def close(self) -> None:
        """Free the model. May be called again."""
        self._runtime.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def runtime(self) -> str:
        """The runtime in use: "paddle" or "onnx"."""
        return self._runtime.kind

    @property
    def embedding_size(self) -> int:
        """E, the size of an embedding."""
        return self.description.embedding_size

    def embed(self, pictures) -> np.ndarray:
        """Embeddings, float32 [N, E], of one image or several, in order. An iterator is consumed batch by batch."""
        return self._collect(pictures, 0, self.embedding_size)

    def scores(self, pictures) -> np.ndarray:
        """Class scores, float32 [N, C]; a softmax turns them into probabilities.

        Raises ExportError for a model without its classifier.
        """
        if self.description.num_classes is None:
            raise ExportError(f"{self._path}: {NO_CLASSIFIER}")
        return self._collect(pictures, 1, self.description.num_classes)

    def classify(self, pictures, k: int = 1) -> TopClasses:
        """The k best classes of each image, with their names if the training data had any.

        Raises ExportError for a model without its classifier, ConfigError for k < 1.
        """
        if self.description.num_classes is None:
            raise ExportError(f"{self._path}: {NO_CLASSIFIER}")
        parts = [top_classes(self.run(images)[1], k, self.class_names) for images in self._batches(pictures)]
        if not parts:
            return top_classes(np.zeros((0, self.description.num_classes), np.float32), k, self.class_names)
        names = None if self.class_names is None else [row for part in parts for row in part.names or []]
        return TopClasses(
            np.concatenate([part.label for part in parts]), np.concatenate([part.score for part in parts]), names
        )

    def similarity(self, a, b) -> np.ndarray:
        """Cosines, float32 [M, N], of all of ``a`` with all of ``b``: images, or embeddings (arrays of float)."""
        return cosines(self._embeddings(a), self._embeddings(b))

    def search(self, gallery: Gallery | np.ndarray, pictures, k: int = 1) -> Matches:
        """Find the k most similar entries of ``gallery`` (a Gallery or embeddings [N, E]) for images or embeddings."""
        gallery = gallery if isinstance(gallery, Gallery) else Gallery(gallery)
        return gallery.search(self._embeddings(pictures), k)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the model's outputs for preprocessed images, float32 [B, C, H, W] (see ``description``).

        Raises DataError for another shape or dtype.
        """
        shape = self.description.image_shape
        if images.ndim != 4 or list(images.shape[1:]) != shape or images.dtype != np.float32:
            raise DataError(f"images: {images.dtype} {list(images.shape)}, must be float32 [batch, {shape}]")
        outputs, sizes = self._runtime.run(images), [self.description.embedding_size, self.description.num_classes]
        wanted = [(len(images), size) for size in sizes if size is not None]
        found = [output.shape for output in outputs]
        if found != wanted:
            raise ExportError(
                f"{self._path}: the outputs are {found}, but plsc.json says {wanted}: the files are of two models; "
                "export the model again"
            )
        return outputs

    def prepare(self, picture) -> np.ndarray:
        """Preprocess an image into the model's input, float32 [C, H, W]."""
        pixels, found = self._read.with_size(picture)
        if self._warns and found != pixels.shape[:2]:
            self._warns = False
            log.warning(
                "%s: an image of %d x %d pixels (width x height) is resized to %d x %d (resize: %s, the default of "
                "this model); give Predictor the resize that you want. Later images are resized without a word",
                self._path, *found[::-1], *pixels.shape[1::-1], self._read.resize,
            )  # fmt: skip
        return normalise(pixels, self.description.pixel_std)

    def _embeddings(self, given) -> np.ndarray:
        is_embedding = isinstance(given, np.ndarray) and given.dtype.kind == "f"
        return np.atleast_2d(given) if is_embedding else self.embed(given)

    def _collect(self, pictures, output: int, size: int) -> np.ndarray:
        parts = [self.run(images)[output] for images in self._batches(pictures)]
        return np.concatenate(parts) if parts else np.zeros((0, size), np.float32)

    def _batches(self, pictures) -> Iterator[np.ndarray]:
        rest = map(self.prepare, _several(pictures))
        for first in rest:
            yield np.stack(list(chain([first], islice(rest, self._batch_size - 1))))


def _image_reader(description: Description, resize: str | None, decoder: str) -> ImageReader:
    channels, height, width = description.image_shape
    resize = resize or description.resize or UNKNOWN_RESIZE
    return ImageReader((channels, height, width), resize, open_jpeg_decoder(decoder))


def _several(pictures) -> Iterable:
    """The images as an iterable; a single image becomes a list of one."""
    single = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    if isinstance(pictures, single):
        return [pictures]
    if isinstance(pictures, np.ndarray) and pictures.dtype != object:
        # [n]: the bytes of a file; [H, W] and [H, W, channels]: pixels; [N, H, W, channels]: several
        return [pictures] if pictures.ndim < 4 else pictures
    if not isinstance(pictures, Iterable):
        raise DataError(f"images: {type(pictures).__name__} is neither an image nor an iterable of images")
    return pictures
