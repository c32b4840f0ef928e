"""LMDB in the layout of face recognition repositories."""

from __future__ import annotations

import os

from plsc.data.containers.files import shown
from plsc.data.containers.image_values import read_values
from plsc.data.containers.labelled import KeyedSource, with_keys
from plsc.data.indexing import Progress
from plsc.data.shared_index import Made, share
from plsc.data.sources import Directory, register_source
from plsc.files.array_file import Arrays


@register_source("lmdb", source="LMDB 0.9; SOTA-Face-Recognition-Train-and-Test")
class LMDBSource(KeyedSource):
    """LMDB with decimal keys and values that are msgpack of (image bytes, label); lmdb and msgpack are not needed.

    dataset_dir: the directory. file: the database in it. num_classes: None takes `__classnum__` of the file, or the
    largest label + 1 if that is more. Images are in numerical order of their keys. The file must not change during a
    run. Memory: 16 bytes per image, 8 more if keys have gaps, once on a machine; 25 during indexing.
    """

    looks_for = "data.mdb (lmdb)"

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        return "data.mdb" if "data.mdb" in directory.files else ""

    def __init__(self, dataset_dir: str | os.PathLike, num_classes: int | None, file: str = "data.mdb") -> None:
        path = os.path.join(os.fspath(dataset_dir), file)
        if os.path.isdir(path):  # x.lmdb/data.mdb
            path = os.path.join(path, "data.mdb")
        index = share(Made("lmdb", [path]), shown(path), lambda progress: _build(path, progress))
        self._set_index([path], index)
        labels = index.content.arrays["labels"]
        counted = max(index.content.facts["classes"] or 0, int(labels.max(initial=-1)) + 1)
        self._set_labels(labels, counted if num_classes is None else num_classes, path)

    def read(self, index: int) -> tuple[bytes, int]:
        return self.bytes_of(index), int(self.labels[index])


def _build(path: str, progress: Progress) -> Arrays:
    found = read_values(path, progress)
    arrays = {"positions": found.positions, "sizes": found.sizes, "labels": found.labels}
    return with_keys(arrays, {"file_sizes": [found.size], "classes": found.classes}, found.keys)
