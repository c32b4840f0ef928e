"""Finds the images of a folder of identities, in the same order on every machine.

A class is a folder directly in the root. Its images are all files below it with an image suffix (plsc.files.suffixes).
Names that begin with a dot, folders that systems make (SYSTEM_FOLDERS), other files, files in the root, folders without
images, links out of the root and link loops are skipped and counted.
"""

from __future__ import annotations

import array
import hashlib
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from plsc.data.indexing import Progress
from plsc.data.label_list import MOST_CLASSES, printable
from plsc.errors import DataError
from plsc.files.suffixes import IMAGES
from plsc.files.texts import GrowingText

SEPARATOR = b"\0"  # in no name
SYSTEM_FOLDERS = {b"@eaDir", b"__MACOSX", b"lost+found", b"$RECYCLE.BIN", b"System Volume Information"}
MOST_DEPTH = 16  # folders inside one another
_ENDINGS = tuple(ending.encode() for ending in IMAGES)


class Watched:
    """The folders that were listed, and their times, by which a change of what is in them is seen.

    folders: their paths relative to ``root``, each followed by SEPARATOR.
    """

    def __init__(self, root: bytes) -> None:
        self._prefix, self._digest, self._newest = os.path.join(root, b""), hashlib.sha256(), 0
        self.folders = bytearray()

    def add(self, folder: bytes) -> None:
        """Before a folder, relative to the root, is listed. Raises OSError."""
        found = os.stat(self._prefix + folder)
        self._newest = max(self._newest, found.st_mtime_ns, found.st_ctime_ns)
        stamp = f"{found.st_dev} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"
        self._digest.update(folder + SEPARATOR + stamp.encode() + SEPARATOR)
        self.folders += folder + SEPARATOR

    def facts(self) -> dict[str, Any]:
        """newest_ns: the newest time. folders_digest: of all paths and times. Plain JSON."""
        return {"newest_ns": self._newest, "folders_digest": self._digest.hexdigest()}


@dataclass
class Walk:
    """The result of a walk. names: sorted names of the classes. sizes: their numbers of images. text: the paths of all
    images, concatenated. lengths: of the paths. passed: {what: [count, example]} of skipped files. setting: what named
    the root, for messages."""

    root: bytes
    setting: str = "data.dataset_dir"
    names: list[bytes] = field(default_factory=list)
    text: GrowingText = field(default_factory=GrowingText)
    lengths: array.array = field(default_factory=lambda: array.array("I"))
    sizes: array.array = field(default_factory=lambda: array.array("q"))
    passed: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watched = Watched(self.root)
        self.twice: list[bytes] = []  # folders of identities that are links to those of others

    def pass_over(self, what: str, path: bytes) -> None:
        """Count a skipped path."""
        count, example = self.passed.get(what, (0, path))
        self.passed[what] = count + 1, example

    def add(self, name: bytes, paths: list[bytes]) -> None:
        """Add a class and its images."""
        self.names.append(name)
        self.text.add(b"".join(paths))
        self.lengths.extend(map(len, paths))
        self.sizes.append(len(paths))

    def notes(self) -> list[str]:
        """Log lines about skipped paths, one per kind, and about classes that may be one."""
        passed = self.passed.items()
        lines = [f"passed over {count} {what}, such as {printable(path)}" for what, (count, path) in passed]
        if self.twice:
            lines.append(
                f"{len(self.twice)} folder(s) are links to the folder of another identity, such as "
                f"{printable(self.twice[0])}: their images have two labels"
            )
        return lines + _alike(self.names)


def walk(
    root: bytes, temporary: Callable[[], str | None] = lambda: None, progress: Progress | None = None
) -> Walk:
    """All images below ``root``. Raises DataError for a folder that cannot be read, and one that is nested too deeply.

    temporary: returns the directory of a file of their paths, if they are many (see plsc.files.texts.GrowingText).
    Lists each folder once; only links need an additional system call.
    """
    found, real = Walk(root, text=GrowingText(temporary)), os.path.realpath(root)
    progress = Progress(printable(root)) if progress is None else progress
    for entry in _sorted_entries(found, root):
        if _is_hidden(found, root, entry):
            continue
        if not _is_folder(entry):
            found.pass_over("file(s) beside the folders of the identities", entry.path)
        elif _leads_out(entry, real):
            found.pass_over("link(s) that lead out of the folder or in a circle", entry.path)
        else:
            if entry.is_symlink() and not os.path.relpath(os.path.realpath(entry.path), real).startswith(b"."):
                found.twice.append(entry.path)
            paths = _images(found, entry.path, real, 1)
            progress.found(len(paths))
            if paths:
                prefix = len(os.path.join(root, b""))
                found.add(entry.name, sorted(path[prefix:] for path in paths))
            else:
                found.pass_over("folder(s) without images, which are no classes", entry.path)
        if len(found.names) > MOST_CLASSES:
            raise DataError(f"{printable(root)}: has more than {MOST_CLASSES} folders, the most classes there can be")
    return found


def walk_images(root: bytes) -> tuple[list[bytes], list[str]]:
    """(paths relative to ``root``, notes about what was skipped): all images in and below a folder, sorted by bytes.

    Raises DataError as ``walk``.
    """
    found, prefix = Walk(root, "images"), len(os.path.join(root, b""))
    paths = sorted(path[prefix:] for path in _images(found, root, os.path.realpath(root), 1))
    return paths, found.notes()


def _images(found: Walk, folder: bytes, real: bytes, depth: int) -> list[bytes]:
    """The paths of the images in a folder of an identity and below it."""
    if depth > MOST_DEPTH:
        raise DataError(f"{printable(folder)}: folders are nested more than {MOST_DEPTH} deep; move the images up")
    paths: list[bytes] = []
    for entry in _sorted_entries(found, folder):
        if _is_hidden(found, folder, entry):
            continue
        if entry.is_symlink() and _leads_out(entry, real):
            found.pass_over("link(s) that lead out of the folder or in a circle", entry.path)
        elif _is_folder(entry):
            paths += _images(found, entry.path, real, depth + 1)
        elif entry.name.lower().endswith(_ENDINGS) and _is_file(entry):
            paths.append(entry.path)
        else:
            found.pass_over("file(s) that are no images by their names or no files", entry.path)
    return paths


def _sorted_entries(found: Walk, folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        found.watched.add(folder[len(os.path.join(found.root, b"")) :])
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{found.setting}: {printable(folder)} cannot be read: {reason}") from error


def _is_hidden(found: Walk, folder: bytes, entry: os.DirEntry[bytes]) -> bool:
    if entry.name.startswith(b"."):
        found.pass_over("hidden name(s), which begin with a dot", entry.path)
        return True
    if entry.name in SYSTEM_FOLDERS and _is_folder(entry):
        found.pass_over("folder(s) that a system has made", entry.path)
        return True
    return False


def _alike(names: list[bytes]) -> list[str]:
    """A line about names that differ in upper and lower case, or in the Unicode form of accents, only."""
    first: dict[str, bytes] = {}
    pairs = []
    for name in names:
        key = unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape")).casefold()
        if first.setdefault(key, name) != name:
            pairs.append((first[key], name))
    if not pairs:
        return []
    one, other = map(printable, pairs[0])
    return [f"{len(pairs)} pair(s) of folders have names that look alike, such as {one} and {other}: two classes each"]


def _leads_out(entry: os.DirEntry[bytes], real: bytes) -> bool:
    """Whether a link leads out of the root, nowhere, or to a folder that contains it."""
    if not entry.is_symlink():
        return False
    target = os.path.realpath(entry.path)
    own = os.path.realpath(os.path.dirname(entry.path))
    inside = target.startswith(os.path.join(real, b""))
    return not inside or os.path.join(own, b"").startswith(os.path.join(target, b""))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
