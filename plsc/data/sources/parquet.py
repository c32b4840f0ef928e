"""Parquet files in the layout of data set hubs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from plsc.data.containers.files import shown
from plsc.data.containers.labelled import LabelledSource
from plsc.data.containers.parquet import Columns, ParquetImages
from plsc.data.sources import Directory, register_source
from plsc.data.sources.tar import find_shards
from plsc.errors import DataError


@register_source("parquet", source="Apache Parquet; the image column of Hugging Face's datasets")
class ParquetSource(LabelledSource):
    """Parquet files with a column of encoded images and one of labels; needs pyarrow.

    dataset_dir: the directory. files: their names in it, as for shards of tar; by default all `*.parquet`, sorted by
    name. image_column: bytes, or a struct with a field bytes. label_column: integers. num_classes: None for the largest
    label + 1. cached_groups: number of row groups whose images each worker keeps in memory. A row group is read as a
    whole, so set data.shuffle_window if there are many. Memory: 4 bytes per image, and the cached groups.
    """

    looks_for = "*.parquet (parquet)"

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        return directory.first(".parquet")

    def __init__(
        self,
        dataset_dir: str | os.PathLike,
        num_classes: int | None,
        files: str = "*.parquet",
        image_column: str = "image",
        label_column: str = "label",
        cached_groups: int = 4,
    ) -> None:
        self._directory = os.fspath(dataset_dir)
        self._columns = Columns(image_column, label_column)
        self._paths = list(find_shards(self._directory, files, "files"))
        self._cached_groups = max(1, cached_groups)
        labels, rows, sizes, groups = [], [], [], []
        for number, path in enumerate(self._paths):
            file = ParquetImages(path, self._columns)
            for group in range(len(file.rows)):
                labels.append(file.labels(group))
                groups.append((number, group))
                sizes.append(file.image_bytes(group))
            rows += file.rows.tolist()
        self._groups = groups  # (file, row group in it)
        self._sizes = np.array(sizes, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        self._set_labels(np.concatenate(labels) if labels else np.empty(0, np.int32), num_classes)
        self._open: dict[int, ParquetImages] = {}
        self._cache: dict[int, tuple[ParquetImages, Any]] = {}  # by row group, least recently used first

    def numbers(self, which: slice) -> tuple[np.ndarray, np.ndarray]:
        """The row numbers, and the bytes of the images of their row groups, as those of single images are unknown."""
        rows = np.arange(*which.indices(len(self)))
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        return rows, self._sizes[groups] & 0xFFFFFFFF

    def open_files(self) -> None:
        self._open, self._cache = {}, {}

    def read(self, index: int) -> tuple[bytes, int]:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        file, images = self._images(group)
        image = file.image(images, index - int(self._starts[group]))
        if image is None:
            raise DataError(f"{self.name(index)}: has no bytes (the image may be a path to a file, which is not read)")
        return image, int(self.labels[index])

    def name(self, index: int) -> str:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        number, inner = self._groups[group]
        return f"{shown(self._paths[number])}: row group {inner}, row {index - int(self._starts[group])}"

    @property
    def place(self) -> str:
        return f"{shown(self._directory)} ({len(self._paths)} files)"

    def _images(self, group: int) -> tuple[ParquetImages, Any]:
        found = self._cache.pop(group, None)
        if found is None:
            while len(self._cache) >= self._cached_groups:
                self._cache.pop(next(iter(self._cache)))
            number, inner = self._groups[group]
            if number not in self._open:
                self._open[number] = ParquetImages(self._paths[number], self._columns)
            found = self._open[number], self._open[number].images(inner)
        self._cache[group] = found
        return found
