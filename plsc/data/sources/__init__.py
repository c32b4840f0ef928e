"""Data sources, one file each: images by their index. The setting `data.dataset` names one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plsc.data.class_table import read_class_table, table_of
from plsc.data.directory import Directory
from plsc.errors import ConfigError
from plsc.registry import SOURCES
from plsc.signatures import require_signature

if TYPE_CHECKING:
    from plsc.data.record import LabelIndex

__all__ = ["CONTAINER", "FOLDER", "LIST", "Directory", "Source", "register_source"]

# The precedence for `data.dataset: auto`: a list before containers, and containers before a folder.
LIST, CONTAINER, FOLDER = 0, 1, 2


class Source:
    """Base class of data sources: a length, images by index, and a record that identifies the data.

    A subclass defines ``__len__``, ``read`` and ``record``. Its constructor receives, by the names of its parameters,
    the settings dataset_dir, label_file, train_image_num, num_classes, image_shape, resize and seed; all other
    parameters are its options, set by ``data.options``. A run creates it twice, to check the data and to train; both
    must be equal. The first time, num_classes may be None: then it is counted.

    A source does not depend on ranks, workers, epochs or augmentation: plsc.data.sampler determines who reads which
    index when. PLSC decodes, augments and normalizes the images.
    """

    # True: read returns the input of the model, float32 [C, H, W], which is neither augmented nor normalized.
    ready = False
    # The number of classes, the largest label + 1, if it is known without reading the images. Used after ``check`` if
    # classifier.num_classes is null. An attribute or a property.
    num_classes: int | None = None
    # The names of the classes, by label, if there are any; stored in the checkpoint and in the exported model.
    class_names: Sequence[str] | None = None
    # The path of the table of these names beside the data (plsc.data.class_table), also where there is none yet; "" for
    # data that have no such file. `plsc pack` writes it.
    class_table = ""
    # The labels and names of all images, if the labels are known without reading the images.
    label_index: LabelIndex | None = None
    # Lines for the log about found and skipped files, each logged once.
    notes: Sequence[str] = ()
    # The precedence for ``data.dataset: auto``: LIST, CONTAINER or FOLDER.
    precedence = CONTAINER
    # What ``recognise`` looks for, for the error of ``auto`` if nothing is found ("train.rec (recordio)").
    looks_for = ""

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        """Return what identifies ``directory`` as data of this kind, for a message ("train.rec"), or "".

        Called for ``data.dataset: auto``. It should read names only, or the first bytes of a file.
        """
        return ""

    def __len__(self) -> int:
        """The number of images, which must not change."""
        raise NotImplementedError

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """Return (image, label): encoded bytes, or pixels uint8 [H, W, C] in RGB or grey; a label in [0, num_classes).

        Called in any order, and by several processes. Raises DataError for an image that cannot be read.
        """
        raise NotImplementedError

    def record(self, count: int | None = None) -> dict[str, Any]:
        """Return a record of the data, as plain JSON; compared between ranks, and with that of a checkpoint.

        ``digest``: a text that differs for other data. ``labels``, if known: the number of classes with images. Sources
        that know all labels without reading the images return plsc.data.record.index_record, so that a resumed run can
        report how the data changed. ``count``, for these only: the record of the first ``count`` images.
        """
        raise NotImplementedError

    def check(self, check_files: bool) -> None:
        """Raise DataError if the data cannot be used. Called on every rank, before anything is written.

        check_files: also check that the image files exist; True on one rank of each machine.
        """

    def known_labels(self) -> np.ndarray | None:
        """Return the labels of all images, int [n], if they are known without reading the images, else None.

        By default those of ``label_index``. `data.sampler: balanced` needs them.
        """
        return None if self.label_index is None else self.label_index.labels[:]

    def _read_class_table(self, file: str, num_classes: int, labels: np.ndarray) -> None:
        """Take class_names from the table beside ``file``, if there is one. labels: of all images. Raises DataError."""
        self.class_table = table_of(file)
        if os.path.lexists(self.class_table):
            table = read_class_table(self.class_table, num_classes)
            self.class_names = table.names
            self.notes = [*self.notes, *table.notes(self.place, labels)]

    def open_files(self) -> None:
        """Open files that stay open. Called once in each reading process, before its first ``read``.

        Workers are forks: they would share the position of a file that the constructor left open.
        """

    def file(self, index: int) -> bytes | None:
        """Return the path of an image that is a file of its own, else None. `plsc make-list` and
        `plsc clean` list such files."""
        return None

    def takes_in(self, path: str) -> bool:
        """Whether an image that is written to ``path`` would be one of these data when they are opened again."""
        return False

    def name(self, index: int) -> str:
        """The name of an image in messages: its file, and its position in a list or container."""
        return f"image {index}"

    @property
    def place(self) -> str:
        """The name of the data in messages: a file or a directory."""
        return "the training data"


def register_source(name: str, *, source: str = "") -> Callable:
    """Decorator that registers a subclass of Source under ``name``. source: the paper or format that it follows.

    Raises ConfigError for a name that is already registered, and for an invalid class.
    """
    add = SOURCES.register(name, source=source)

    def checked(value: Any) -> Any:
        _check(f"data source {name!r}", value)
        return add(value)

    return checked


def _check(what: str, value: Any) -> None:
    if not isinstance(value, type) or not issubclass(value, Source):
        raise ConfigError(f"{what}: {getattr(value, '__qualname__', value)!s:.80} is no subclass of plsc.data.Source")
    missing = [name for name in ("__len__", "read", "record") if getattr(value, name) is getattr(Source, name)]
    if missing:
        raise ConfigError(f"{what}: {value.__qualname__} lacks {', '.join(missing)}")
    require_signature(what, value)
    require_signature(f"{what}: read", value.read, ("self", "index"))
