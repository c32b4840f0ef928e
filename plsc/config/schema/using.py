"""The part of the schema that is about using a trained model: export and predict."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option
from plsc.config.schema.data import RESIZE_MODES


@dataclasses.dataclass(frozen=True)
class Export:
    """What convert_for_prediction() writes to `model_save_dir`/inference."""

    format: str = option(
        "paddle", "A model for Paddle Inference, one in ONNX (needs the extra onnx), or both.",
        choices=("paddle", "onnx", "both"),
    )  # fmt: skip
    l2_normalise: bool = option(False, "Embeddings come out with length 1.")
    fuse_flip: bool = option(
        False,
        "The net sees each picture and its mirror image, and the embedding is the mean of the two, in twice the time.",
    )
    with_classifier: bool = option(
        False, "Class scores come out as well: scale * cosine with each class centre, or for softmax the logits."
    )
    images: str = option(
        "", "A folder or a list of pictures of which up to 8 are run after the export, to compare it with the trained "
        "model; empty takes those of the training list, or random pixels where there is none.",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Predict:
    """What predict() reads; it writes to `model_save_dir`/predictions."""

    images: str = option(
        "", "A folder, read with all folders in it, or a list with a path a line; empty takes `data.label_file`."
    )
    resize: str | None = option(
        None, "What is done to an image of another size than the model's, as in `data.resize`; null is as the model "
        "was trained, or stretch where that is not known (checkpoints and exported models of versions without "
        "`data.resize`).", choices=RESIZE_MODES,
    )  # fmt: skip
