"""Training data: sources and data sets, transforms and augmentations, the sampler, and the loader."""

from __future__ import annotations

# Paddle 2.6 exports its own zlib to the whole process. If Python's zlib is loaded after it, PNG images and np.random
# fail or crash; loaded before, it uses its own library. So this import is the first, and plsc.data precedes paddle.
import zlib  # noqa: F401

from plsc.data.augmentations import Augmentations, register_augmentation
from plsc.data.check import check_label_list
from plsc.data.datasets import ImageListDataset, Preparation, SourceDataset, SyntheticDataset
from plsc.data.image_reader import ImageReader
from plsc.data.loader import Loader, LoaderOptions
from plsc.data.record import Difference, difference, list_record
from plsc.data.resize import resize_image
from plsc.data.sampler import GlobalBatchSampler, SampleOrder
from plsc.data.sources import Source, register_source
from plsc.data.transforms import decode_image, normalise, read_image, unsupported_channels
from plsc.data.user_dataset import UserDataset, read_test_image, read_test_sample
from plsc.data.user_reader import UserReader

__all__ = [
    "Augmentations",
    "Difference",
    "GlobalBatchSampler",
    "ImageListDataset",
    "ImageReader",
    "UserDataset",
    "Loader",
    "LoaderOptions",
    "Preparation",
    "SampleOrder",
    "UserReader",
    "Source",
    "SourceDataset",
    "SyntheticDataset",
    "check_label_list",
    "decode_image",
    "difference",
    "list_record",
    "normalise",
    "unsupported_channels",
    "read_image",
    "read_test_image",
    "read_test_sample",
    "register_augmentation",
    "register_source",
    "resize_image",
]
