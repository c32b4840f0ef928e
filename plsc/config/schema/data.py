"""The section `data`."""

from __future__ import annotations

import dataclasses
from typing import Any

from plsc.config import augmentations
from plsc.config.option import option
from plsc.registry import SOURCES

# The size of the synthetic set where data.train_image_num does not give it.
SYNTHETIC_IMAGES = 10240
# What can be done to an image of another size than the model's (plsc.data.resize).
DECODERS = ("auto", "pillow", "simplejpeg")
RESIZE_MODES = ("refuse", "stretch", "crop", "pad")


@dataclasses.dataclass(frozen=True)
class Data:
    """The training data and the verification sets."""

    dataset: str = option(
        "auto", "The data source (`plsc list sources`). auto looks at `dataset_dir` and says what it takes: the list "
        "where `label_file` is there or is set, else a container, else folders of identities. Also made-up images to "
        "try the speed (synthetic), or a source of your own, from a module in `plugins`.", registry=SOURCES,
    )  # fmt: skip
    options: dict = option({}, "Options that the data source has beyond these keys: parameters of its constructor.")
    sources: list[dict[str, Any]] | None = option(
        None, "Several sources as one, in place of `dataset`, `label_file` and `options`: a list of mappings with "
        "`dataset_dir` and, where they are needed, these keys, `num_classes` (null counts them) and `class_offset`, "
        "which is added to the labels (null: the classes of those before). Verification sets are looked for in "
        "`data.dataset_dir`.", per_rank="what is in them is compared",
    )  # fmt: skip
    dataset_dir: str = option(
        "./train_data", "The directory of the images, the list and the verification sets.", filled=True,
        per_rank="each machine may keep a copy of its own; what is in it is compared",
        setter="set_dataset_dir", attributes=("dataset_dir",),
    )  # fmt: skip
    label_file: str = option(
        "label.txt", "The list in `dataset_dir`: a path and a label a line.", filled=True,
        per_rank="what the lists say is compared",
    )  # fmt: skip
    train_image_num: int | None = option(
        None,
        f"The number of images; null counts the list, and another number than the list's is refused. For synthetic "
        f"data their number, {SYNTHETIC_IMAGES} where null.",
        unit="images", within="[1, 1e10]", setter="set_train_image_num", attributes=("train_image_num",),
    )  # fmt: skip
    sampler: str = option(
        "shuffle", "The order of the training images: shuffle draws a permutation of all in each epoch; balanced draws "
        "groups of `identities` x `images_per_identity` images, so that each identity comes equally often.",
        choices=("shuffle", "balanced"),
    )  # fmt: skip
    identities: int = option(
        16, "For `sampler: balanced`: identities of a group, different ones. A global batch must be whole groups.",
        unit="identities", within="[1, 1e6]",
    )  # fmt: skip
    images_per_identity: int = option(
        4, "For `sampler: balanced`: images of each identity in a group; an identity with fewer repeats them.",
        unit="images", within="[1, 1000]",
    )  # fmt: skip
    shuffle_window: int | None = option(
        None, "For disks and network file systems that seek slowly, and for Parquet: images are shuffled in windows of "
        "so many, each of 32 runs of neighbouring images from all over the data, so that a window is read while little "
        "else is. Batches are less mixed: where classes lie next to each other, one holds few of them. null: one order "
        "of all.",
        unit="images", within="[32, 1e9]",
    )  # fmt: skip
    num_workers: int = option(
        2, "Worker processes per rank that read and decode; 0 reads in the training process.", unit="processes",
        within="[0, 1024]", per_rank="depends on the machine; batches are the same with any number",
        setter="set_num_workers",
    )  # fmt: skip
    pixel_std: float = option(
        127.5, "Pixels become (x - 127.5) / pixel_std; PLSC 0.x used 128, 2.x 127.5.", choices=(127.5, 128.0)
    )
    decoder: str = option(
        "auto", "What decodes JPEG files; the pixels are the same. auto takes simplejpeg (extra jpeg), which is "
        "faster, where it is installed and its pixels equal those of Pillow.", choices=DECODERS,
    )  # fmt: skip
    resize: str = option(
        "refuse", "What is done to an image of another size than the model's, in training, in verification sets and by "
        "Predictor alike: refused; stretched; cropped to the aspect ratio of the model's input and scaled (crop); "
        "or scaled and padded with black (pad). Kept in the exported model.", choices=RESIZE_MODES,
    )  # fmt: skip
    random_flip: bool = option(
        True, "Mirror each training image with probability 0.5. false means `augmentations: []`."
    )
    augmentations: list[str | dict] | None = option(
        None, "What is done to training images: a preset (none, flip, adaface or strong), or a list in this order "
        "(`plsc list augmentations`): names, or names with options, as in [flip, {blur: {largest: 3}}]; also functions "
        "of your own, from a module in `plugins`. null is [flip], or [] with `random_flip: false`.",
        refuse=augmentations.problem,
    )  # fmt: skip
    val_targets: list[str] | None = option(
        None, "The verification sets in `dataset_dir`: `lfw` or `lfw.bin` is lfw.bin, `pairs.txt` a list of pairs of "
        "images, `products.txt` one of images and identities, `faces/` a folder of identities. null takes every .bin "
        "that is there; without one, training does not verify.",
        setter="set_val_targets", attributes=("val_targets",),
    )  # fmt: skip
