"""What to read (datasets), how a picture becomes numbers (transforms), in which order (sampler), by whom (loader)."""

from __future__ import annotations

# Paddle 2.6 exports its own zlib to the whole process. Where Python's zlib is loaded after it, PNG pictures and
# np.random fail or crash; loaded before, it keeps to its own library. Hence first, and plsc.data before paddle.
import zlib  # noqa: F401

from plsc.data.check import check_label_list
from plsc.data.datasets import ImageListDataset, SyntheticDataset
from plsc.data.hooks import IndexedHook, read_test_image, read_test_sample
from plsc.data.loader import Loader
from plsc.data.reader import ReaderHook
from plsc.data.record import Difference, difference, list_record
from plsc.data.sampler import GlobalBatchSampler
from plsc.data.transforms import decode_image, normalise, only_pictures, read_picture

__all__ = [
    "Difference",
    "GlobalBatchSampler",
    "ImageListDataset",
    "IndexedHook",
    "Loader",
    "ReaderHook",
    "SyntheticDataset",
    "check_label_list",
    "decode_image",
    "difference",
    "list_record",
    "normalise",
    "only_pictures",
    "read_picture",
    "read_test_image",
    "read_test_sample",
]
