"""The index of a folder of identities: paths and labels of its images, shared by the processes of a machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plsc.data.identity_walk import SEPARATOR, Walk, Watched
from plsc.data.shared_index import Made
from plsc.files.array_file import Arrays
from plsc.files.texts import HeldText, Text

LEAST_IMAGES = 2_000_000  # of a folder whose index is shared
_LOOKED_AT = 16  # folders of identities, by which the number of images is estimated
_BLOCK = 1 << 20  # images
_SURE_NS = 2 * 10**9  # a change so shortly before a listing may have the time of one after it


@dataclass(frozen=True)
class PathIndex:
    """Images by paths and labels, a plsc.data.record.LabelIndex.

    text: all paths, concatenated. starts: int [n + 1], their positions. labels: int32 [n].
    """

    text: Text
    starts: np.ndarray
    labels: np.ndarray
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> bytes:
        """The path of an image, relative to the root. Raises OSError if it cannot be read."""
        return self.text.read(int(self.starts[index]), int(self.starts[index + 1]))

    def block(self, which: slice) -> tuple[bytes, np.ndarray, np.ndarray]:
        """(bytes, starts, lengths) of the paths of consecutive images. Raises OSError."""
        starts = self.starts[which.start : which.stop + 1].astype(np.int64)
        return self.text.read(int(starts[0]), int(starts[-1])), starts[:-1] - starts[0], np.diff(starts)


@dataclass(frozen=True)
class MadeFromFolder(Made):
    """An index that is made by listing the one folder in ``paths``.

    It is used by processes that began before the folder was listed, if no listed folder has changed since then: so each
    run lists the folder again, also where the file system does not keep the times of folders.
    """

    @property
    def is_large(self) -> bool:
        """Whether it may have LEAST_IMAGES images, by the number of its folders and of the files in some of them."""
        try:
            with os.scandir(self.paths[0]) as entries:
                folders = [entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
            some = folders[:: len(folders) // _LOOKED_AT + 1]
            files = sum(len(os.listdir(folder)) for folder in some)
        except (OSError, ValueError):
            return False  # said by the one who lists it
        return bool(some) and files * len(folders) >= LEAST_IMAGES * len(some)

    def key(self) -> str:
        return self.key_of([os.path.realpath(self.paths[0])])

    def is_current(self, content: Arrays) -> bool:
        facts = content.facts
        if facts["begun_ns"] < _process_start_ns() or facts["newest_ns"] >= facts["begun_ns"] - _SURE_NS:
            return False
        now = Watched(os.fsencode(self.paths[0]))
        try:
            for folder in _split(content.texts["folders"]):
                now.add(folder)
        except OSError:
            return False  # said by the one who lists it
        return now.facts()["folders_digest"] == facts["folders_digest"]


def content_of(found: Walk, begun_ns: int) -> Arrays:
    """The result of a walk that began at this time, to be stored."""
    lengths, text = np.asarray(found.lengths, np.uint32), found.text.text()
    starts = np.zeros(len(lengths) + 1, np.uint32 if len(text) < 2**32 else np.int64)
    for first in range(0, len(lengths), _BLOCK):
        some = lengths[first : first + _BLOCK]
        starts[first + 1 : first + 1 + _BLOCK] = int(starts[first]) + np.cumsum(some, dtype=np.int64)
    labels = np.repeat(np.arange(len(found.sizes), dtype=np.int32), found.sizes)
    facts = {"begun_ns": begun_ns, "notes": found.notes(), **found.watched.facts()}
    names = b"".join(name + SEPARATOR for name in found.names)
    texts = {"text": text, "folders": HeldText(found.watched.folders), "names": HeldText(names)}
    return Arrays({"starts": starts, "labels": labels}, facts, texts)


def names_of(content: Arrays) -> list[bytes]:
    """The names of the classes."""
    return _split(content.texts["names"])


def index_of(content: Arrays, num_classes: int) -> PathIndex:
    """The images, class by class."""
    return PathIndex(content.texts["text"], content.arrays["starts"], content.arrays["labels"], num_classes)


def _split(text: Text) -> list[bytes]:
    """The names in a text, each followed by SEPARATOR."""
    return text.read(0, len(text)).split(SEPARATOR)[:-1]


def _process_start_ns() -> int:
    """When this process began, by the clock of the kernel."""
    process, machine = Path("/proc/self/stat"), Path("/proc/stat")
    ticks = int(process.read_text().rsplit(")", 1)[1].split()[19])  # since the machine began
    lines = machine.read_text().splitlines()
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))  # in whole seconds
    return boot * 10**9 + ticks * 10**9 // os.sysconf("SC_CLK_TCK")
