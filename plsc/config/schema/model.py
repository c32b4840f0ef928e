"""The section `model`."""

from __future__ import annotations

import dataclasses

from plsc.config.option import option
from plsc.config.stages import freeze_problem
from plsc.registry import MODELS


@dataclasses.dataclass(frozen=True)
class Model:
    """The backbone: image to feature."""

    name: str = option(
        "ResNet50", "The backbone (`plsc list models`). Your own is set by name, from a module in `plugins`, or as an "
        "object, by Entry.set_model.", registry=MODELS,
        setter="set_model_name", attributes=("model_name",),
    )  # fmt: skip
    embedding_size: int = option(
        512, "The length of the feature.", within="[1, 65536]", setter="set_emb_size", attributes=("emb_dim",)
    )
    image_shape: list[int] = option(
        [3, 112, 112], "Channels, height and width of the images.", unit="pixels", within="[1, 16384]", length=3,
        setter="set_image_shape", attributes=("image_shape",),
    )  # fmt: skip
    data_format: str | None = option(
        None, "The layout inside the backbone; images are fed as NCHW in both. null means NHWC with "
        "`mixed_precision.enabled`, for which GPUs have faster kernels, and NCHW without.",
        choices=("NCHW", "NHWC"), setter="set_data_format",
    )  # fmt: skip
    dropout: float | None = option(
        None, "The dropout probability before the last layer; null uses the model's default: 0.4 for ResNet, none for "
        "the others.", within="[0, 1)",
    )  # fmt: skip
    base_width: int = option(
        64, "The channels of the first layer; 64 is the published model, smaller values make it narrower.",
        unit="channels", within="[1, 4096]",
    )  # fmt: skip
    freeze: list[str] = option(
        [], "Stages of the backbone that are not trained, as in [stem, stage1]; or all, the whole backbone: then only "
        "the class centres are trained. Batch norm and dropout of a frozen stage work as in evaluation, and its "
        "statistics stay as they are. An unknown name is refused with those of the model.", refuse=freeze_problem,
    )  # fmt: skip
    recompute: bool = option(
        False, "Keep only the results of the backbone's units in the forward pass, and compute the rest again in the "
        "backward pass: less memory, about a third more time, the same losses to the bit.",
    )  # fmt: skip
    options: dict = option(
        {}, "Further options of the backbone, as in {depth: 3}: parameters of its constructor.",
    )  # fmt: skip
    input_info: list[dict] | None = option(
        None, "The inputs of your own model, as in PLSC 0.2; null means an image of `image_shape` and its label.",
        setter="set_input_info", attributes=("input_info",),
    )  # fmt: skip
