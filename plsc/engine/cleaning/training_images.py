"""The training images as a trained model sees them: what clean and merge-centres have in common."""

from __future__ import annotations

import os

import numpy as np

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.data.datasets import SourceDataset
from plsc.data.opening import open_dataset
from plsc.engine.inference.predict import ImageList, embed_images
from plsc.engine.inference.trained_model import TrainedModel
from plsc.engine.run.consistency import require_same
from plsc.engine.run.start import Run
from plsc.errors import ConfigError, DataError, ExportError
from plsc.serving import is_exported
from plsc.serving.gallery import FEATURES, read_features

FOLDER = "clean"  # in model_save_dir


def check_training_images(config: Config, user_objects: UserObjects, command: str) -> None:
    """Raise DataError for data of the user's own, ConfigError for an exported model, which has no centres."""
    if is_exported(config.checkpoint_dir):
        raise ConfigError(
            f"checkpoint_dir={config.checkpoint_dir!r}: is an exported model; {command} needs the centres of the "
            "classes: give the checkpoint or the directory of the run"
        )
    own = [name for name in ("train_dataset", "train_reader", "test_dataset")
           if getattr(user_objects, name) is not None]  # fmt: skip
    if own:
        raise DataError(f"{own[0]}: {command} reads a data source (data.dataset) and data.val_targets; remove it")


def open_training_images(config: Config, run: Run) -> SourceDataset:
    """The training data, whose labels are known. Raises DataError."""
    dataset = open_dataset(config, run.log.info, check_files=run.env.local_rank == 0)
    if dataset.source.known_labels() is None:
        raise DataError(f"{dataset.source.place} does not tell its labels before images are read; use another source")
    return dataset


def require_same_classes(dataset: SourceDataset, path: str, manifest: Manifest) -> None:
    """Raise DataError where a label of the data is another class in the checkpoint, by their names."""
    stored, names = checkpoint.read_class_names(path, manifest), dataset.class_names or ()
    for label, (old, new) in enumerate(zip(stored, names)):
        if old != new:
            raise DataError(
                f"{dataset.source.place}: class {label} is {new!r}, but {old!r} in the checkpoint {path}: its centres "
                "are of other classes; set data.dataset_dir to the data that it was trained with, or give a "
                "checkpoint that was trained with these data"
            )


def embed_training(run: Run, model: TrainedModel, dataset: SourceDataset) -> np.ndarray:
    """The features of all training images, memory-mapped from ``model_save_dir``/clean, on rank 0; none on others.

    They are the same for all commands that need them, and not computed twice."""
    source, root = dataset.source, os.path.abspath(run.config.data.dataset_dir)
    named = source.file(0) is not None
    if named:
        paths = [os.path.abspath(os.fsdecode(source.file(index) or b"")) for index in range(len(dataset))]
    else:
        paths = [source.name(index) for index in range(len(dataset))]
    images = ImageList(paths, lambda index: dataset.get(index, 0)[0], named, root)
    require_same(run.group, DataError, {"the images to clean": images.digest()})
    directory = os.path.join(os.path.abspath(run.config.model_save_dir), FOLDER)
    try:
        embed_images(run, model, images, dataset.preparation.resize, directory)
    except OSError as error:
        raise ExportError(f"{error.filename or directory}: cannot be written: {error.strerror}") from None
    run.group.barrier("embedded")
    return read_features(os.path.join(directory, FEATURES)) if run.env.rank == 0 else np.empty((0, 0), np.float32)
