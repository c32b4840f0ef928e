"""Parquet files in the layout of data set hubs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from plsc.data.containers.files import shown
from plsc.data.containers.labelled import LabelledSource
from plsc.data.containers.parquet import Columns, ParquetImages
from plsc.data.indexing import Progress
from plsc.data.shared_index import Made, share
from plsc.data.sources import Directory, register_source
from plsc.data.sources.tar import find_shards
from plsc.errors import DataError
from plsc.files.array_file import Arrays

_MOST_OPEN = 16  # files


@register_source("parquet", source="Apache Parquet; the image column of Hugging Face's datasets")
class ParquetSource(LabelledSource):
    """Parquet files with a column of encoded images and one of labels; needs pyarrow.

    dataset_dir: the directory. files: their names in it, as for shards of tar; by default all `*.parquet`, sorted by
    name. image_column: bytes, or a struct with a field bytes. label_column: integers. num_classes: None for the largest
    label + 1. cached_groups: number of row groups whose images each worker keeps in memory. A row group is read as a
    whole, so set data.shuffle_window if there are many. Memory: 4 bytes per image, once on a
    machine, and the cached groups.
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
        made = Made("parquet", self._paths, [image_column, label_column])
        index = share(made, self.place, lambda progress: _build(self._paths, self._columns, progress))
        self.notes, found = index.notes, index.content.arrays
        self._files, self._inner, self._sizes = found["file_of_group"], found["group_in_file"], found["group_bytes"]
        self._starts = np.concatenate([[0], np.cumsum(found["group_rows"])]).astype(np.int64)
        self._set_labels(found["labels"], num_classes, os.path.join(self._directory, "parquet"))
        self._open: dict[int, ParquetImages] = {}  # by number, least recently used first
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
        number, inner = int(self._files[group]), int(self._inner[group])
        return f"{shown(self._paths[number])}: row group {inner}, row {index - int(self._starts[group])}"

    @property
    def place(self) -> str:
        return f"{shown(self._directory)} ({len(self._paths)} files)"

    def _images(self, group: int) -> tuple[ParquetImages, Any]:
        found = self._cache.pop(group, None)
        if found is None:
            while len(self._cache) >= self._cached_groups:
                self._cache.pop(next(iter(self._cache)))
            number, inner = int(self._files[group]), int(self._inner[group])
            file = self._file(number)
            found = file, file.images(inner)
        self._cache[group] = found
        return found

    def _file(self, number: int) -> ParquetImages:
        """An open file, whose description of all row groups is in memory."""
        file = self._open.pop(number, None)
        if file is None:
            while len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open)))
            file = ParquetImages(self._paths[number], self._columns)
        self._open[number] = file
        return file


def _build(paths: list[str], columns: Columns, progress: Progress) -> Arrays:
    """The labels [n], and of each row group the number of its file, its number in the file, its rows, and the bytes of
    its images."""
    labels = [np.empty(0, np.int32)]  # of a row group
    groups: list[tuple[int, int, int, int]] = []
    for number, path in enumerate(paths):
        file = ParquetImages(path, columns)
        for group, rows in enumerate(file.rows.tolist()):
            labels.append(file.labels(group))
            progress.found(rows)
            groups.append((number, group, rows, file.image_bytes(group)))
    names = "file_of_group", "group_in_file", "group_rows", "group_bytes"
    of_groups = np.array(groups, np.int64).reshape(-1, len(names)).T
    return Arrays({"labels": np.concatenate(labels), **dict(zip(names, np.ascontiguousarray(of_groups)))})
