"""Files named by a label list."""

from __future__ import annotations

import os
from typing import Any

from plsc.data.check import require_good_lines
from plsc.data.label_list import LARGE, LabelList, printable, read_label_list
from plsc.data.record import list_record
from plsc.data.shared_index import Made, share
from plsc.data.sources import LIST, Directory, Source, register_source
from plsc.data.transforms import read_image
from plsc.errors import DataError

LEAST_BYTES = LARGE  # of a list that is shared


@register_source("list")
class LabelListSource(Source):
    """Image files of a list, with one path and label per line.

    dataset_dir: the directory that paths are relative to. label_file: the list, relative to it or absolute, with lines
    `path<TAB or spaces>label`. num_classes: None for the largest label + 1. class_names: those of a table beside the
    list (plsc.data.class_table), if there is one. Memory: the bytes of the list, and 13 bytes per line; of a list of 64
    MiB or more only 13 bytes per line (17 from 4 GiB on), once on a machine.
    """

    precedence = LIST
    looks_for = "the label list data.label_file (list)"

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        path = os.path.join(directory.path, directory.label_file)
        return f"the label list {directory.label_file}" if directory.label_file and os.path.isfile(path) else ""

    def __init__(self, dataset_dir: str | os.PathLike, label_file: str | os.PathLike, num_classes: int | None) -> None:
        self._root = os.fsencode(dataset_dir)
        path = os.path.join(os.fspath(dataset_dir), os.fspath(label_file))
        made = Made("list", [path], [num_classes], least=LEAST_BYTES)
        place = printable(os.fsencode(path))
        index = share(made, place, lambda progress: read_label_list(path, num_classes, progress).content())
        self._list = LabelList.of_content(path, index.content, num_classes)
        self.notes = list(index.notes)
        self.num_classes = self._list.num_classes
        self.label_index = self._list
        self._read_class_table(self._list.file, self._list.num_classes, self._list.labels)

    def __len__(self) -> int:
        return len(self._list)

    def read(self, index: int) -> tuple[bytes, int]:
        try:
            return read_image(self.file(index)), self._list.labels[index]
        except OSError as error:
            raise DataError(f"{self.name(index)} cannot be read: {error.strerror or error}") from error

    def record(self, count: int | None = None) -> dict[str, Any]:
        return list_record(self._list, count)

    def check(self, check_files: bool) -> None:
        """All bad lines, and with ``check_files`` all missing files, in one error."""
        require_good_lines(self._root, self._list, check_files)

    def file(self, index: int) -> bytes:
        return os.path.join(self._root, self._list.path(index))

    def name(self, index: int) -> str:
        return self._list.name(index)

    @property
    def place(self) -> str:
        return self._list.file
