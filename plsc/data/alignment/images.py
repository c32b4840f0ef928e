"""The images to align: those below a folder, or those of a list; and where each aligned one goes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property

from plsc.data.containers.files import shown
from plsc.data.identity_walk import walk_images
from plsc.errors import DataError
from plsc.files import safe_open
from plsc.files.suffixes import IMAGES


@dataclass(frozen=True)
class ImageFiles:
    """Image files. root: their directory, as given. paths: normalised and relative to it. notes: lines for a log.
    walked: whether they are all images of a folder, not those of a list."""

    root: str
    paths: list[str]
    notes: list[str] = field(default_factory=list)
    walked: bool = False

    def key(self, path: str) -> str:
        """A path of another file, such as a landmark file, as it would be in ``paths``: it may be absolute, or begin
        with the root as given."""
        normal = os.path.normpath(path)
        root = os.path.normpath(self.root)
        if os.path.isabs(normal):
            return os.path.relpath(normal, os.path.abspath(root))
        inside = root != os.curdir and normal.startswith(root + os.sep)
        return os.path.relpath(normal, root) if inside and normal not in self._known else normal

    @cached_property
    def _known(self) -> set[str]:
        return set(self.paths)


def find_images(images: str) -> ImageFiles:
    """All images in and below a folder, or those of a text file with a path on each line; what follows a tab, such as a
    label, is ignored. Raises DataError for a folder or list that cannot be read or has no images."""
    if os.path.isdir(images):
        paths, notes = walk_images(os.fsencode(images))
        told = [f"{images}: {note}" for note in notes]
        found = ImageFiles(images, [os.fsdecode(path) for path in paths], told, walked=True)
    else:
        found = ImageFiles(os.path.dirname(images) or os.curdir, _read_list(images))
    if not found.paths:
        raise DataError(f"{shown(images)}: no images; give a folder of images, or a list with a path on each line")
    return found


def _read_list(file: str) -> list[str]:
    seen: dict[str, int] = {}
    try:
        with safe_open.open_text(file, safe_open.LIST, "utf-8-sig", "surrogateescape", "\n") as lines:
            for number, line in enumerate(lines, 1):
                text = line.partition("\t")[0].strip()
                if not text:
                    continue
                path = os.path.normpath(text)
                if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
                    raise DataError(
                        f"{shown(file)}:{number}: {shown(text)} is not below the directory of the list, whose layout "
                        "the aligned images keep; write relative paths"
                    )
                if seen.setdefault(path, number) != number:
                    raise DataError(f"{shown(file)}:{number}: {shown(text)} is in line {seen[path]} already")
    except OSError as error:
        raise DataError(f"{shown(file)}: cannot be read: {error.strerror or error}") from error
    return list(seen)


def output_names(paths: list[str], suffix: str) -> list[str]:
    """The paths with another suffix. Raises DataError if two images would have one name."""
    names: dict[str, str] = {}
    for path in paths:
        stem, old = os.path.splitext(path)
        name = f"{stem if old.lower() in IMAGES else path}.{suffix}"
        if names.setdefault(name, path) != path:
            raise DataError(f"{shown(path)} and {shown(names[name])} would both become {shown(name)}: rename one")
    return list(names)
