"""Data sources, one file each: images by their index. The setting `data.dataset` names one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plsc.data.directory import Directory
from plsc.errors import ConfigError
from plsc.registry import SOURCES
from plsc.signatures import require_signature

if TYPE_CHECKING:
    from plsc.data.record import LabelIndex

__all__ = ["CONTAINER", "FOLDER", "LIST", "Directory", "Source", "register_source"]

# In which order `data.dataset: auto` takes what it recognises: a list before containers, any of them before a folder.
LIST, CONTAINER, FOLDER = 0, 1, 2


class Source:
    """A data set: its length, its images by index, and what tells it from another one.

    A subclass writes ``__len__``, ``read`` and ``record``. Its constructor gets, by the names of its parameters, the
    settings dataset_dir, label_file, train_image_num, num_classes, image_shape, resize and seed; all other parameters
    are its options, set by ``data.options``. It is made twice in a run, and must be the same both times: to check the
    data before anything else is done, and to train. The first time num_classes may be None: it is to be counted.

    A source knows nothing of ranks, workers, epochs or augmentation: which index is read when, and by whom, is decided
    by plsc.data.sampler. Decoding, augmentation and normalisation are done for it.
    """

    # True: read gives the input of the model, float32 [C, H, W], which is neither augmented nor normalised.
    ready = False
    # How many classes the data have, the largest label + 1, where that is known without reading the images. Asked after
    # ``check`` where classifier.num_classes is null. An attribute or a property.
    num_classes: int | None = None
    # The names of the classes, by label, where the data name them; kept in the checkpoint and in the exported model.
    class_names: Sequence[str] | None = None
    # The labels and names of all images, where the labels are known without reading the images.
    label_index: LabelIndex | None = None
    # Lines for the log of what was found and passed over, each said once.
    notes: Sequence[str] = ()
    # When ``data.dataset: auto`` takes it: LIST, CONTAINER or FOLDER.
    precedence = CONTAINER
    # What ``recognise`` looks for, for the message of ``auto`` where nothing is found ("train.rec (recordio)").
    looks_for = ""

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        """What makes ``directory`` a data set of this kind, for a message ("train.rec"); "" where nothing does.

        Asked by ``data.dataset: auto``. Look at names only, or at the first bytes of a file.
        """
        return ""

    def __len__(self) -> int:
        """The number of images. It does not change."""
        raise NotImplementedError

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """(image, label): encoded bytes, or pixels uint8 [H, W, C] in RGB or grey; the label in [0, num_classes).

        Called in any order, and by several processes. Raises DataError for an image that cannot be read.
        """
        raise NotImplementedError

    def record(self, count: int | None = None) -> dict[str, Any]:
        """What tells these data from others, as plain JSON; compared between ranks, and with that of a checkpoint.

        ``digest``: a text that is another one for other data. ``labels``, if it is known: how many classes have images.
        Sources that know the label of each image without reading it return what plsc.data.record.index_record makes:
        then a run that continues is told how the data have changed. Only these are asked for the record of the first
        ``count`` images.
        """
        raise NotImplementedError

    def check(self, check_files: bool) -> None:
        """Raise DataError where the data cannot be used. Called on every rank, before anything is written.

        check_files: also check that the image files exist; True on one rank of each machine.
        """

    def open_files(self) -> None:
        """Open files that are kept open. Called once in each process that reads, before its first ``read``.

        Workers are forks: a file that the constructor left open is shared by all of them, with its position.
        """

    def name(self, index: int) -> str:
        """What a message calls an image: its file, and the place in a list or container."""
        return f"image {index}"

    @property
    def place(self) -> str:
        """What a message calls the data: a file, or a directory."""
        return "the training data"


def register_source(name: str, *, source: str = "") -> Callable:
    """Decorator: a subclass of Source becomes known as ``name``. ``source``: the paper or format that it follows.

    Raises ConfigError for a name that is taken, and for a class that cannot be one.
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
