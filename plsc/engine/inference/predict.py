"""Predict: the features of all images of a folder or a list, in order, without augmentation, in files."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plsc.config import Config
from plsc.data import ImageReader, normalise, read_test_image
from plsc.data.opening import AUTO, choose_source
from plsc.engine.evaluation.data import require_image_input
from plsc.engine.inference import best_class
from plsc.engine.inference.predictions import PredictionFiles
from plsc.engine.inference.trained_model import TrainedModel, open_model
from plsc.engine.run.consistency import require_same
from plsc.engine.run.run_log import clock
from plsc.engine.run.start import Run
from plsc.errors import DataError, ExportError
from plsc.files.working_directory import working_directory
from plsc.serving import find_images
from plsc.serving.gallery import FEATURES, TABLE, read_features
from plsc.serving.predictor import UNKNOWN_RESIZE

CHUNK = 512  # the least images between two writes: what a kill loses
LOG_SECONDS = 60


@dataclass(frozen=True)
class Prediction:
    """``features`` [M, E] float32 (memory-mapped) of ``paths``, in order, and the two files."""

    features: np.ndarray
    paths: list[str]
    features_file: str
    paths_file: str


@dataclass(frozen=True)
class ImageList:
    """``read(i)`` returns float32 [C, H, W]. is_file: the paths name files, below ``root`` or absolute."""

    paths: list[str]
    read: Callable[[int], np.ndarray]
    is_file: bool
    root: str = ""

    def digest(self) -> str:
        """A digest of number, names and order, independent of ``root``."""
        names = "\n".join(path.removeprefix(self.root) for path in self.paths)
        return f"{len(self.paths):,} images, checksum {zlib.crc32(os.fsencode(names)):08x}"


def predict(run: Run) -> Prediction:
    """Embed the images of ``predict.images``, of the training data, or of ``test_dataset``; every rank calls it.

    The files are in ``model_save_dir``/predictions. An interrupted run is continued.
    """
    model = open_model(run, with_classes=True)
    resize = _resize_mode(model)
    images = run.group.agree(lambda: find_images_to_embed(run, model.config, resize))
    require_same(run.group, DataError, {"the images to predict": images.digest()})
    directory = os.path.join(os.path.abspath(run.config.model_save_dir), "predictions")
    try:
        embed_images(run, model, images, resize, directory)
    except OSError as error:
        raise ExportError(f"{error.filename or directory}: cannot be written: {error.strerror}") from None
    run.group.barrier("predicted")
    files = os.path.join(directory, FEATURES), os.path.join(directory, TABLE)
    return Prediction(read_features(files[0]), images.paths, *files)


def embed_images(run: Run, model: TrainedModel, images: ImageList, resize: str, directory: str) -> None:
    """Write the features of the images to ``directory``, or continue to; every rank calls it. Raises OSError, and
    DataError where another process writes features beside it."""
    where = os.path.dirname(directory)
    with contextlib.ExitStack() as held:
        lock = working_directory(where, f"model_save_dir={where!r}")
        run.group.agree(lambda: None if run.env.rank else held.enter_context(lock))
        _embed_images(run, model, images, resize, directory)


def _embed_images(run: Run, model: TrainedModel, images: ImageList, resize: str, directory: str) -> None:
    count, config = len(images.paths), model.config
    made_by = {"weights": model.info.identity, "image_shape": list(config.model.image_shape),
               "pixel_std": config.data.pixel_std, "resize": resize}  # fmt: skip
    files, names = None, model.info.class_names
    made_by = made_by if names is None else {**made_by, "classes": True}
    if run.env.rank == 0:
        size = model.info.embedding_size
        files = PredictionFiles(directory, images.paths, size, made_by, images.is_file, names)
    done, complete = run.group.broadcast([files.done, files.is_complete] if files else None)
    if complete:
        run.log.info(f"{count:,} features of {model.info.name} are already in {directory}")
        return
    if done:
        run.log.info(f"{done:,} of {count:,} features are already done")
    embedder, batch = model.embedder(run.env), run.config.test_batch_size * run.env.world_size
    chunk = -(-CHUNK // batch) * batch
    told = begun = time.monotonic()
    for first in range(done, count, chunk):
        last = min(first + chunk, count)
        features, _ = embedder.embed(lambda index, first=first: images.read(first + index), last - first, flip=False)
        if files is not None:
            files.append(*(best_class.unpack(features) if names is not None else [features]))
        now = time.monotonic()
        left = clock((now - begun) / (last - done) * (count - last))
        run.log.progress(f"images, {left} left", last, count)
        if now - told > LOG_SECONDS and last < count:
            told = now
            run.log.info(f"predict: {last:,} of {count:,} images, {left} left")
    if files is not None:
        files.finish()
        run.log.info(f"{count:,} features of {model.info.name} in {directory}, their images in {TABLE}")


def _training_images(config: Config) -> str:
    """The folder of identities, or the label list, whichever the run would train on."""
    section = config.data
    listed = os.path.join(section.dataset_dir, section.label_file)
    try:
        kind = choose_source(config).name if section.dataset == AUTO else section.dataset
    except DataError:
        return listed  # which is not there, and told so
    return section.dataset_dir if kind == "folder" else listed


def _resize_mode(model: TrainedModel) -> str:
    """How images of another size are treated: ``predict.resize``, else ``data.resize`` if the user set it, else as in
    training, else as in earlier versions."""
    config = model.config
    set_for_all = config.data.resize if "data.resize" in config.given else None
    return config.predict.resize or set_for_all or model.info.resize or UNKNOWN_RESIZE


@dataclass
class _FileReader:
    """Reads files as inputs of the model; ``say`` gets a line about the first that is resized."""

    paths: list[str]
    pixels: ImageReader
    pixel_std: float
    say: Callable[[str], None]
    is_told: bool = False

    def __call__(self, index: int) -> np.ndarray:
        name = repr(self.paths[index])
        pixels, found = self.pixels.with_size(self.paths[index], name)
        if found != pixels.shape[:2] and not self.is_told:
            self.is_told = True
            self.say(f"predict: {name} is {found[1]} x {found[0]} pixels (width x height); {self.pixels.resize_note()}")
        return normalise(pixels, self.pixel_std)


def find_images_to_embed(run: Run, config: Config, resize: str) -> ImageList:
    """The images to embed. Raises DataError where there are none."""
    dataset, shape = run.user_objects.test_dataset, list(config.model.image_shape)
    if dataset is not None and not config.predict.images:
        if not len(dataset):
            raise DataError("test_dataset: is empty, there is nothing to predict")
        return ImageList([str(i) for i in range(len(dataset))], lambda i: read_test_image(dataset, i, shape), False)
    require_image_input(config)
    source = config.predict.images or _training_images(config)
    paths, others = find_images(source)
    if others:
        run.log.info(f"predict: {others:,} files in {source} are skipped: their names are not those of images")

    read = _FileReader(paths, ImageReader.from_config(config, resize), config.data.pixel_std, run.log.info)
    return ImageList(paths, read, True, source if os.path.isdir(source) else os.path.dirname(source))
