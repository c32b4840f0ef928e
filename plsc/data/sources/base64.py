"""PLSC 0.x's base64 files."""

from __future__ import annotations

import base64
import os

from plsc.data.containers.base64_lines import add_lines
from plsc.data.containers.files import read_small, shown
from plsc.data.containers.labelled import ExtentSource
from plsc.data.containers.samples import Samples
from plsc.data.indexing import Progress
from plsc.data.label_list import printable
from plsc.data.shared_index import Made, share
from plsc.data.sources import Directory, register_source
from plsc.errors import DataError
from plsc.files import safe_open
from plsc.files.array_file import Arrays

MOST_FILES = 100_000  # PLSC 0.x writes one a rank


@register_source("base64", source="PLSC 0.1 and 0.2: tools/process_base64_files.py")
class Base64Source(ExtentSource):
    """Files of lines `base64<TAB>label`, which `file_list.txt` names, as PLSC 0.x wrote them for each rank.

    dataset_dir: the directory. file_list: the list in it, a path a line, relative to the directory. num_classes: None
    counts them, the largest label + 1. All files are read by all ranks, as one order; images that PLSC's tool has
    repeated to make files of equal length are there twice. Memory: 16 bytes an image, once on a machine.
    """

    looks_for = "file_list.txt and base64_rank_0 (base64)"

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        names = ("file_list.txt", "base64_rank_0")
        return " and ".join(names) if set(names) <= set(directory.files) else ""

    def __init__(
        self, dataset_dir: str | os.PathLike, num_classes: int | None, file_list: str = "file_list.txt"
    ) -> None:
        self._list = os.path.join(os.fspath(dataset_dir), file_list)
        text = read_small(self._list, safe_open.MANIFEST)
        if text.count(b"\n") > MOST_FILES:
            raise DataError(f"{shown(self._list)}: has more than {MOST_FILES:,} lines; it must name a file on each")
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if not names:
            raise DataError(f"{shown(self._list)}: is empty; it must name the files with the images, one a line")
        if any(b"\0" in name for name in names):
            raise DataError(f"{shown(self._list)}: is no list of files")
        paths = [os.path.join(os.fspath(dataset_dir), os.fsdecode(name)) for name in names]
        index = share(Made("base64", paths), shown(self._list), lambda progress: _build(paths, progress))
        self._set_index(paths, index)
        self._set_labels(index.content.arrays["labels"], num_classes, self._list)

    def read(self, index: int) -> tuple[bytes, int]:
        text = self.bytes_of(index)
        try:
            return base64.b64decode(text, validate=True), int(self.labels[index])
        except ValueError as error:
            raise DataError(f"{self.name(index)}: {printable(text)[:60]} is not base64: {error}") from error

    @property
    def place(self) -> str:
        return shown(self._list)


def _build(paths: list[str], progress: Progress) -> Arrays:
    samples, file_sizes, start = Samples(), [], 0
    for path in paths:
        file_sizes.append(add_lines(samples, path, start, progress))
        start += file_sizes[-1]
    positions, sizes, labels = samples.arrays()
    return Arrays({"positions": positions, "sizes": sizes, "labels": labels}, {"file_sizes": file_sizes})
