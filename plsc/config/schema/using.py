"""The sections `export` and `predict`."""

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
    l2_normalise: bool = option(False, "Normalise embeddings to length 1.")
    fuse_flip: bool = option(
        False,
        "The embedding is the mean of those of an image and its mirror image, in twice the time.",
    )
    with_classifier: bool = option(
        False, "Also export class scores: scale * cosine with each class centre, or for softmax the logits."
    )
    images: str = option(
        "", "A folder or a list of images, of which up to 8 are used to compare the export with the trained model; "
        "empty uses images of the training data, or random pixels without them.",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Predict:
    """What predict() reads; it writes to `model_save_dir`/predictions."""

    images: str = option(
        "", "A folder, with its subfolders, or a list with one path per line; empty uses `data.label_file`."
    )
    resize: str | None = option(
        None, "What is done to an image of another size than the model's, as in `data.resize`; null is as the model "
        "was trained, or stretch where that is not known (checkpoints and exported models of versions without "
        "`data.resize`).", choices=RESIZE_MODES,
    )  # fmt: skip
