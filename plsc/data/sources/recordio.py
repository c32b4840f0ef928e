"""MXNet's RecordIO, as insightface publishes its training sets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from plsc.data.containers.files import read_small, shown
from plsc.data.containers.labelled import KeyedSource, with_keys
from plsc.data.containers.recordio import image_of, payload
from plsc.data.containers.recordio_index import listing_of, read_index
from plsc.data.indexing import Progress
from plsc.data.label_list import printable
from plsc.data.shared_index import Made, share
from plsc.data.sources import Directory, register_source
from plsc.errors import DataError
from plsc.files import safe_open
from plsc.files.array_file import Arrays

_PROPERTY = re.compile(rb"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*(?:,.*)?", re.DOTALL)


@register_source("recordio", source="MXNet RecordIO (dmlc-core); insightface's train.rec")
class RecordIOSource(KeyedSource):
    """MXNet's `train.rec`, as MS1MV3, Glint360K and others are published; mxnet is not needed.

    dataset_dir: the directory. file: the records; `train.idx` in the same directory is used if it exists, and
    `property` (classes, height, width) is compared with the settings, the size only if resize is "refuse".
    num_classes: None takes that of `property`, or counts: the largest label + 1. Images are in ascending order of their
    keys. Memory: 16 bytes per image, 8 more if keys have gaps, once on a machine; at most 28 during indexing.
    """

    looks_for = "train.rec (recordio)"

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        return "train.rec" if "train.rec" in directory.files else ""

    def __init__(
        self,
        dataset_dir: str | os.PathLike,
        num_classes: int | None,
        image_shape: Sequence[int],
        resize: str = "refuse",
        file: str = "train.rec",
    ) -> None:
        self._path = os.path.join(os.fspath(dataset_dir), file)
        beside = os.path.join(os.path.dirname(self._path), "property")
        classes = _require_property(beside, num_classes, image_shape if resize == "refuse" else None)
        listing = listing_of(self._path)
        paths = [self._path, listing] if os.path.lexists(listing) else [self._path]
        index = share(Made("recordio", paths), shown(self._path), self._build)
        self._set_index([self._path], index)
        self._set_labels(index.content.arrays["labels"], classes if num_classes is None else num_classes, self._path)

    def read(self, index: int) -> tuple[bytes, int]:
        where = self.name(index)
        return image_of(payload(self.bytes_of(index), where), where), int(self.labels[index])

    def _build(self, progress: Progress) -> Arrays:
        found = read_index(self._path, progress)
        arrays = {"positions": found.offsets, "sizes": found.sizes, "labels": found.labels}
        return with_keys(arrays, {"file_sizes": [found.size]}, found.keys)


def _require_property(path: str, num_classes: int | None, image_shape: Sequence[int] | None) -> int | None:
    """The number of classes in `property`; None if the file does not exist. Raises DataError if the settings differ;
    image_shape None accepts images of any size."""
    if not os.path.lexists(path):
        return None
    text = read_small(path, safe_open.SETTINGS)
    found = _PROPERTY.fullmatch(text)
    if found is None:
        raise DataError(f"{shown(path)}: {printable(text)} does not begin with 'classes,height,width'; correct it")
    classes, height, width = map(int, found.groups())
    if num_classes is not None and classes > num_classes:
        raise DataError(
            f"{shown(path)}: says {classes} classes, classifier.num_classes={num_classes}: set classifier.num_classes: "
            f"{classes}"
        )
    if image_shape is not None and (height, width) != tuple(image_shape[1:]):
        channels = image_shape[0]
        raise DataError(
            f"{shown(path)}: says images of {width} x {height} pixels (width x height), model.image_shape="
            f"{list(image_shape)}: set model.image_shape: [{channels}, {height}, {width}], or "
            "data.resize"
        )
    return classes
