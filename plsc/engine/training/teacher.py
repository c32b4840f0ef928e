"""The teacher of `distill.model`: a model that PLSC exported, or an ONNX file, embeds the images of each step."""

from __future__ import annotations

import os
import time

import numpy as np

from plsc.config import Config
from plsc.data.transforms import PIXEL_MEAN, normalise_pixels
from plsc.engine.program.build import TEACHER
from plsc.engine.program.inputs import PIXELS, input_names
from plsc.engine.run.consistency import require_same
from plsc.engine.run.start import Run, threads
from plsc.engine.training.onnx_teacher import OnnxTeacher
from plsc.errors import ConfigError, ExportError, TrainingError
from plsc.serving import Predictor, read_description
from plsc.serving.runtimes import ONNX_SUFFIX, RuntimeOptions


def check_teacher(config: Config) -> None:
    """Raise ConfigError where the teacher takes other images, or gives embeddings of another size; ExportError where
    there is none. Called before anything is written."""
    path = config.distill.model
    if not path:
        return
    if path.endswith(ONNX_SUFFIX):
        OnnxTeacher(path, config, RuntimeOptions(threads=1))
        return
    try:
        about = read_description(path)
    except ExportError as error:
        what = "it must be a directory that `plsc export` wrote, or an ONNX file"
        raise ExportError(f"distill.model={path!r}: {error}; {what}") from None
    wanted = {
        "model.image_shape": (list(about.image_shape), list(config.model.image_shape)),
        "model.embedding_size": (about.embedding_size, config.model.embedding_size),
        "data.pixel_std": (float(about.pixel_std), float(config.data.pixel_std)),
    }
    for key, (teacher, own) in wanted.items():
        if teacher != own:
            raise ConfigError(
                f"distill.model={path!r}: has {key}={teacher}, this run {own}; they must be equal: set {key}, or take "
                "another teacher"
            )


class StepInputs:
    """The inputs of a step by their names: images, labels, and with a teacher its embeddings of the images."""

    def __init__(self, run: Run) -> None:
        self._names = input_names(run.config)
        self._pixel_std = run.config.data.pixel_std
        self._teacher = Teacher(run) if run.config.distill.model else None

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        inputs = dict(zip(self._names, (images, labels)))
        if self._teacher is None:
            return inputs
        given = normalise_pixels(images, self._pixel_std) if images.dtype == PIXELS else images
        return {**inputs, TEACHER: self._teacher.embed(given)}


class Teacher:
    """Embeds the images of this rank in the training process. Open it after the data workers were forked, as it begins
    threads. Raises ConfigError, the same on every rank, where the ranks have other weights."""

    def __init__(self, run: Run) -> None:
        config, env = run.config, run.env
        path = os.path.abspath(config.distill.model)
        self._path = path
        options = RuntimeOptions(threads(config, env), env.device, env.device_id)
        entering = ""
        if path.endswith(ONNX_SUFFIX):
            self._model: OnnxTeacher | Predictor = OnnxTeacher(path, config, options)
            identity = self._model.identity
            input_ = f"RGB, (x - {PIXEL_MEAN:g}) / {config.data.pixel_std:g}"
            entering = f"; the file does not say how images enter it, they are {input_}"
        else:
            self._model = Predictor(
                path, device=options.device, threads=options.threads, card=options.card, callers=options.callers
            )
            identity = self._model.description.identity
        require_same(run.group, ConfigError, {"the model in distill.model": identity})
        self._most = config.train_batch_size  # images at a time, as in the backbone
        seconds = self._time((config.step_batch_size, *config.model.image_shape))
        run.log.info(
            f"distill: {path} ({self._model.runtime}) embeds each batch in the training process, which adds "
            f"{seconds:.3f} s to a step{entering}"
        )

    def embed(self, images: np.ndarray) -> np.ndarray:
        """The embeddings [B, E] of images float32 [B, C, H, W]. Raises TrainingError for one that is not finite."""
        embedding = self._run(images)
        if not np.isfinite(embedding).all():
            raise TrainingError(f"distill.model={self._path!r}: gives embeddings that are not finite")
        return embedding

    def _time(self, shape: tuple[int, ...]) -> float:
        """Seconds for a batch, the second time."""
        images = np.zeros(shape, np.float32)
        for _ in range(2):
            began = time.perf_counter()
            self._run(images)
        return time.perf_counter() - began

    def _run(self, images: np.ndarray) -> np.ndarray:
        parts = [images[first : first + self._most] for first in range(0, len(images), self._most)]
        return np.concatenate([self._model.run(part)[0] for part in parts])
