"""Clean: all training images and verification sets are embedded on all ranks; rank 0 searches for errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.cleaning.centre_use import CentreUse, dominant, keep
from plsc.cleaning.classes import unit
from plsc.cleaning.find import Hashes, Training, VerificationImages, find
from plsc.cleaning.removal import Images, require_new_list
from plsc.cleaning.report import Report
from plsc.cleaning.request import Request
from plsc.config import Config
from plsc.data.checking.look import WORDS, perceptual_hash
from plsc.data.checking.scan import scan
from plsc.data.datasets import SourceDataset
from plsc.data.transforms import decode_image
from plsc.engine.cleaning.training_images import embed_training, open_training_images, require_same_classes
from plsc.engine.evaluation import left_open
from plsc.engine.evaluation.data import verification_files
from plsc.engine.evaluation.sets import image_reader
from plsc.engine.inference.trained_model import TrainedModel, open_model
from plsc.engine.run.start import Run
from plsc.errors import CheckpointError
from plsc.evaluation.identity_sets import AnySet, IdentitySet, load_set
from plsc.evaluation.metric import DISTRACTOR, IDENTITIES
from plsc.evaluation.pair_sets import image_location


def clean(run: Run, request: Request) -> Report | None:
    """Search for errors by the checkpoint that the run starts from. Every rank calls it; None on all but rank 0."""
    model, config = open_model(run), run.config.copy()
    config.set("data.augmentations", [])
    dataset = run.group.agree(lambda: _open(config, run, request))
    labels = np.asarray(dataset.source.known_labels(), np.int64)
    path, manifest = checkpoint.open_checkpoint(run.start_dir, run.group, checkpoint.Expected(), verified=True)
    run.group.agree(lambda: require_same_classes(dataset, path, manifest))
    targets = run.group.agree(lambda: _targets(run, config))
    embeddings = embed_training(run, model, dataset)
    sets = list(_embed_sets(run, model, config, targets))
    if run.env.rank:
        return None
    centres, notes = _centres(config, path, manifest, CentreUse(embeddings, labels, manifest.sub_centres))
    run.log.info("clean: perceptual hashes of all images")
    seen = scan(dataset, request.processes, run.log.info)
    training = Training(embeddings, labels, dataset.num_classes, centres, Hashes(seen.perceptual, seen.has == 2))
    run.log.info("clean: search")
    found = find(training, [one for _, one in sets], request.limits)
    images = {one.name: _image_of(test) for test, one in sets}
    about = Images(dataset.source, labels, os.path.abspath(config.data.dataset_dir))
    return Report(dataset, about, found, model.info.name, images, tuple(notes))


def _open(config: Config, run: Run, request: Request) -> SourceDataset:
    dataset = open_training_images(config, run)
    if request.list_file and run.env.rank == 0:
        require_new_list(request.list_file, dataset.source)
    return dataset


def _targets(run: Run, config: Config) -> list[tuple[str, Any]]:
    """(name, path) of each verification set. Raises DataError for one that is not there."""
    notes: list[str] = []
    left_open.settle_targets(config, notes)
    for line in notes:
        run.log.info(line)
    names = list(config.data.val_targets or [])
    if not names:
        run.log.info("clean: there is no verification set, so nothing is compared with one (data.val_targets)")
    return list(zip(names, verification_files(config, names))) if names else []


def _embed_sets(
    run: Run, model: TrainedModel, config: Config, targets: list[tuple[str, Any]]
) -> Iterator[tuple[AnySet, VerificationImages]]:
    """Each verification set with its features and hashes. Images of pairs that are there twice stay."""
    embedder = model.embedder(run.env)
    for name, path in targets:
        found = run.group.agree(lambda name=name, path=path: load_set(path, name, {IDENTITIES}))
        features, _ = embedder.embed(image_reader(config, found), len(found.images), flip=False)
        yield found, VerificationImages(name, features, _identities(found), _hashes(run, found))


def _identities(found: AnySet) -> np.ndarray:
    """int64 [m]: the identities of a set, for pairs of one identity the number of the pair; DISTRACTOR for others."""
    if isinstance(found, IdentitySet):
        return found.identities
    return np.where(found.issame, np.arange(len(found.issame)), DISTRACTOR).repeat(2)


def _hashes(run: Run, found: AnySet) -> Hashes:
    """The perceptual hashes of a verification set, on rank 0."""
    hashes = Hashes.none(len(found.images))
    if run.env.rank:
        return hashes
    values = np.zeros((len(found.images), WORDS), np.uint64)
    for index in range(len(found.images)):
        values[index] = perceptual_hash(decode_image(found.images[index], image_location(found, index)))
    return replace(hashes, values=values, known=np.ones(len(values), bool))


def _image_of(found: AnySet) -> Callable[[int], tuple[Any, str]]:
    return lambda index: (found.images[index], image_location(found, index))


def _centres(config: Config, path: str, manifest: Manifest, use: CentreUse) -> tuple[np.ndarray | None, list[str]]:
    """(the unit centres of the checkpoint, float32 [C, E], of several of a class the dominant one; lines about them).
    None for a loss without normalised centres, such as softmax: the means of the classes are used."""
    if not config.loss().normalised:
        loss = config.classifier.loss_type
        return None, [f"classifier.loss_type: {loss} has no centres: the means of the embeddings take their place"]
    rows, number = np.zeros((manifest.num_classes, manifest.embedding_size), np.float32), manifest.sub_centres
    only = checkpoint.ReadOptions(["weight"])
    for _, first, block in checkpoint.read_rows(path, manifest, 0, manifest.num_classes, only):
        if number > 1:
            block = keep(block, dominant(use.counts(first, block)), number)
        if block.shape[1:] != rows.shape[1:]:
            raise CheckpointError(
                f"{path}: its classes have {list(block.shape[1:])} values, the embeddings {list(rows.shape[1:])}; set "
                "classifier.loss_type as it was trained"
            )
        rows[first : first + len(block)] = unit(block)
    if number == 1:
        return rows, []
    return rows, [f"of the {number} centres of a class (classifier.sub_centres) the one of most of its images counts"]
