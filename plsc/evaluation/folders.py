"""Folders with one sub-folder of images per identity."""

from __future__ import annotations

import os
from dataclasses import dataclass

from plsc.errors import DataError
from plsc.files.suffixes import IMAGES

SUFFIXES = IMAGES


@dataclass(frozen=True)
class Identities:
    """names: the sub-folders, sorted. sizes: the number of images of each. paths: all images, identity by identity."""

    names: list[str]
    sizes: list[int]
    paths: list[str]


def find_identities(folder: str | os.PathLike[str]) -> Identities:
    """Find the identities of a folder and their images, both sorted by the bytes of their names.

    Files without an image suffix, hidden names and empty sub-folders are skipped. Raises DataError for a folder that
    cannot be read or has no identity with images, and for folders inside an identity's folder.
    """
    names, sizes, paths = [], [], []
    for identity in _entries(folder):
        if not identity.is_dir():
            continue
        images = []
        for entry in _entries(identity.path):
            if entry.is_dir():
                raise DataError(
                    f"{entry.path}: is a folder inside an identity's folder; images must be directly in FOLDER/NAME"
                )
            if entry.name.lower().endswith(SUFFIXES):
                images.append(entry.path)
        if images:
            names.append(identity.name)
            sizes.append(len(images))
            paths += images
    if not names:
        raise DataError(f"{os.fspath(folder)}: has no sub-folder with images; each identity needs one")
    return Identities(names, sizes, paths)


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{os.fspath(folder)}: cannot be read: {error.strerror or error}") from error
    return sorted(shown, key=lambda entry: os.fsencode(entry.name))
