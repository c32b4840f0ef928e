"""Writes images as files, with a label list."""

from __future__ import annotations

import os
from typing import Any

from plsc.data.packing.writer import Contents, Writer, ending_of
from plsc.data.sources import Source
from plsc.data.sources.label_list import LabelListSource
from plsc.files.atomic import flush_file_system

LIST = "label.txt"
_FOLDER_IMAGES = 1_000


class LabelListWriter(Writer):
    """`images/000000/000000123.jpg`, `label.txt` with path and label of each in the order of the source."""

    def __init__(self, directory: str, state: dict[str, Any]) -> None:
        self._directory = directory
        self._list = open(os.path.join(directory, LIST), "ab")
        self._list.truncate(state.get("bytes", 0))

    def add(self, index: int, image: bytes, label: int) -> None:
        folder = f"images/{index // _FOLDER_IMAGES:06d}"
        name = f"{folder}/{index:09d}.{ending_of(image, f'image {index}')}"
        os.makedirs(os.path.join(self._directory, folder), exist_ok=True)
        with open(os.path.join(self._directory, name), "wb") as file:
            file.write(image)
        self._list.write(f"{name}\t{label}\n".encode())

    def flush(self) -> dict[str, Any]:
        self._list.flush()
        flush_file_system(self._directory)
        return {"bytes": os.fstat(self._list.fileno()).st_size}

    def finish(self, contents: Contents) -> None:
        self.flush()
        self._list.close()

    @staticmethod
    def reader(directory: str, num_classes: int, size: tuple[int, int]) -> Source:
        return LabelListSource(directory, LIST, num_classes)
