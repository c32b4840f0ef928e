"""Merge centres: of the several centres of each class (sub-centre ArcFace) the one of most of its images is kept."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from plsc import checkpoint
from plsc.checkpoint import Manifest
from plsc.cleaning.centre_use import CentreUse, dominant
from plsc.engine.cleaning.training_images import embed_training, open_training_images, require_same_classes
from plsc.engine.inference.trained_model import open_model
from plsc.engine.run.start import Run

FAR = math.cos(math.radians(75))  # beyond, an image counts as wrongly labelled (Deng et al. 2020, section 3.3)


@dataclass(frozen=True)
class Merged:
    """``directory``: the checkpoint with one centre of each class. Of ``images``, ``elsewhere`` are nearest to another
    centre of their class, and ``far`` more than 75 degrees from the one that was kept. ``empty``: classes without
    images, of which the first was kept."""

    directory: str
    images: int
    elsewhere: int
    far: int
    empty: int

    def lines(self) -> list[str]:
        """What the log says of it."""
        found = [
            f"of {self.images:,} images {self.elsewhere:,} are nearest to a centre that was not kept, {self.far:,} are "
            "more than 75 degrees from the one that was"
        ]
        if self.empty:
            found.append(f"{self.empty:,} classes have no images here: their first centre was kept")
        return found


def merge_centres(run: Run) -> Merged | None:
    """Write the checkpoint that the run starts from with one centre of each class to ``model_save_dir``; every rank
    calls it, None on all but rank 0. Raises CheckpointError, on every rank."""
    path, manifest = checkpoint.open_checkpoint(run.start_dir, run.group, checkpoint.Expected(), verified=True)
    run.group.agree(lambda: checkpoint.require_centres_to_merge(path, manifest, run.config.model_save_dir))
    model, config = open_model(run), run.config.copy()
    config.set("data.augmentations", [])
    dataset = run.group.agree(lambda: open_training_images(config, run))
    run.group.agree(lambda: require_same_classes(dataset, path, manifest))
    embeddings = embed_training(run, model, dataset)
    labels = np.asarray(dataset.source.known_labels(), np.int64)
    found = run.group.agree(lambda: None if run.env.rank else _merge(run, path, manifest, embeddings, labels))
    for line in found.lines() if found else []:
        run.log.info(f"merge-centres: {line}")
    return found


def _merge(run: Run, path: str, manifest: Manifest, embeddings: np.ndarray, labels: np.ndarray) -> Merged:
    use = CentreUse(embeddings, labels, manifest.sub_centres)
    chosen, elsewhere, far, empty = np.zeros(manifest.num_classes, np.int64), 0, 0, 0
    only = checkpoint.ReadOptions(["weight"])
    for _, first, rows in checkpoint.read_rows(path, manifest, 0, manifest.num_classes, only):
        counts = use.counts(first, rows)
        here = dominant(counts)
        chosen[first : first + len(rows)] = here
        elsewhere += int(counts.sum() - counts.max(axis=1).sum())
        empty += int((counts.sum(axis=1) == 0).sum())
        far += int((use.cosines(first, rows, here) < FAR).sum())
    directory = checkpoint.keep_one_centre(path, manifest, os.path.abspath(run.config.model_save_dir), chosen)
    return Merged(directory, len(labels), elsewhere, far, empty)
