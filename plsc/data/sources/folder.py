"""A folder of identities: `root/identity/*.jpg`."""

from __future__ import annotations

import os
import time
from typing import Any

from plsc.data.folder_index import MadeFromFolder, content_of, index_of, names_of
from plsc.data.identity_walk import walk
from plsc.data.indexing import Progress
from plsc.data.label_list import printable
from plsc.data.record import index_record
from plsc.data.shared_index import share, temporary_directory
from plsc.data.sources import FOLDER, Directory, Source, register_source
from plsc.data.transforms import read_image
from plsc.errors import DataError
from plsc.files.array_file import Arrays


@register_source("folder")
class FolderSource(Source):
    """A folder with one folder of images per class, as in `root/identity/1.jpg`; folder names are class names.

    dataset_dir: the root. num_classes: None counts the folders. Classes are sorted by the bytes of their names, equally
    on every machine; the label is the position in that order. See plsc.data.identity_walk for the files that are images
    and those that are skipped. Memory: 8 bytes per image (12 for 4 GiB of paths or more), and the names. From about
    two million images on, the 8 bytes are there once on a machine, and the paths stay in a file.
    """

    precedence = FOLDER
    looks_for = "folders of images, one for each identity (folder)"

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        if not directory.folders:
            return ""
        return f"{len(directory.folders)} folder(s), such as {directory.folders[0]!r:.60}, and no list or container"

    def __init__(self, dataset_dir: str | os.PathLike, num_classes: int | None = None) -> None:
        self._root = os.fsencode(dataset_dir)
        index = share(MadeFromFolder("folder", [self.place]), printable(self._root), self._build)
        names = names_of(index.content)
        passed = index.content.facts["notes"]
        self._require_classes(names, passed, num_classes)
        self._index = index_of(index.content, len(names) if num_classes is None else num_classes)
        self.num_classes = len(names)
        self.label_index = self._index
        self.class_names = [name.decode("utf-8", "backslashreplace") for name in names]
        self.notes = [*index.notes, *(f"{self.place}: {line}" for line in passed)]

    def _build(self, progress: Progress) -> Arrays:
        begun_ns = time.time_ns()
        return content_of(walk(self._root, temporary_directory, progress), begun_ns)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, index: int) -> tuple[bytes, int]:
        try:
            return read_image(self.file(index)), int(self._index.labels[index])
        except OSError as error:
            raise DataError(f"{self.name(index)} cannot be read: {error.strerror or error}") from error

    def record(self, count: int | None = None) -> dict[str, Any]:
        return {"kind": "folder", **index_record(self._index, count)}

    def file(self, index: int) -> bytes:
        return os.path.join(self._root, self._index.path(index))

    def takes_in(self, path: str) -> bool:
        root, place = os.path.realpath(self._root), os.path.realpath(os.fsencode(path))
        inside = place.startswith(os.path.join(root, b""))
        names = os.path.relpath(place, root).split(b"/")
        return inside and len(names) > 1 and not any(name.startswith(b".") for name in names)

    def name(self, index: int) -> str:
        return f"image {printable(self.file(index))}"

    @property
    def place(self) -> str:
        return os.fsdecode(self._root)

    def _require_classes(self, names: list[bytes], passed: list[str], num_classes: int | None) -> None:
        """Raise DataError for fewer than two identities, and for more than num_classes."""
        place, count = printable(self._root), len(names)
        if count < 2:
            what = f"only one folder with images, {printable(names[0])}" if count else "no folder with images"
            others = "".join(f"; {line}" for line in passed)
            raise DataError(
                f"data.dataset_dir={place}: {what}; a folder for each of at least two identities is needed, as in "
                f"{place[1:-1]}/NAME/1.jpg: set data.dataset_dir to the folder that holds them{others}"
            )
        if num_classes is not None and count > num_classes:
            raise DataError(
                f"data.dataset_dir={place}: has {count} folders with images, more than classifier.num_classes="
                f"{num_classes}; set it to {count}, or to null, which counts them"
            )
