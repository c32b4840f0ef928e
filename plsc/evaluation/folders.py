"""Folders of identities: one sub-folder per identity, its images directly in it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from plsc.errors import DataError
from plsc.files.suffixes import PICTURES

SUFFIXES = PICTURES


@dataclass(frozen=True)
class Identities:
    """names: the sub-folders, sorted. sizes: how many images each has. paths: all images, identity by identity."""

    names: list[str]
    sizes: list[int]
    paths: list[str]


def find_identities(folder: str | os.PathLike[str]) -> Identities:
    """The identities of a folder, in the order of the bytes of their names, and so their images.

    Files that are no images by their endings, hidden names and empty sub-folders are passed over. Raises DataError
    for a folder that cannot be read or has no identity with images, and for folders inside an identity's.
    """
    names, sizes, paths = [], [], []
    for identity in _entries(folder):
        if not identity.is_dir():
            continue
        images = []
        for entry in _entries(identity.path):
            if entry.is_dir():
                raise DataError(f"{entry.path}: is a folder inside an identity's; images lie directly in FOLDER/NAME")
            if entry.name.lower().endswith(SUFFIXES):
                images.append(entry.path)
        if images:
            names.append(identity.name)
            sizes.append(len(images))
            paths += images
    if not names:
        raise DataError(f"{os.fspath(folder)}: has no sub-folder with images; one per identity is needed")
    return Identities(names, sizes, paths)


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{os.fspath(folder)}: cannot be read: {error.strerror or error}") from error
    return sorted(shown, key=lambda entry: os.fsencode(entry.name))
