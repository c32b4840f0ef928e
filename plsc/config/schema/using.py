"""The sections `export` and `predict`."""

from __future__ import annotations

import dataclasses
import re

from plsc.config.option import option
from plsc.config.schema.data import RESIZE_MODES

EXPORT_TARGETS = ("predictor", "insightface", "triton", "kserve")
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # the name of an object of Kubernetes


def _name_problem(name: str) -> str | None:
    allowed = "lower-case letters, digits and hyphens, at most 63, the first a letter and the last no hyphen"
    return None if _DNS_LABEL.fullmatch(name) else f"must be {allowed}"


@dataclasses.dataclass(frozen=True)
class Export:
    """What convert_for_prediction() writes to `model_save_dir`/inference, or to the directory of another target."""

    target: str = option(
        "predictor", "The program that will load the model. predictor: plsc.Predictor; the others take it in ONNX "
        "alone, and what is written to `model_save_dir`/TARGET is for Predictor as well. insightface: its "
        "`model_zoo.get_model`; triton: a model repository of Triton; kserve: the same, with an InferenceService.",
        choices=EXPORT_TARGETS,
    )  # fmt: skip
    format: str = option(
        "paddle", "With the target predictor: a model for Paddle Inference, one in ONNX (needs the extra onnx), or "
        "both.", choices=("paddle", "onnx", "both"),
    )  # fmt: skip
    model_name: str = option(
        "backbone", "The name of the model for Triton and KServe: at most 63 lower-case letters, digits and hyphens, "
        "the first a letter, the last no hyphen.", refuse=_name_problem,
    )  # fmt: skip
    max_batch_size: int = option(
        32, "The largest batch that Triton and KServe make of requests.", unit="images", within="[1, 4096]"
    )
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
