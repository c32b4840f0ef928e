"""Makes a verification set: chooses pairs of the images of identities, writes them and reads them back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import load_bin, save_bin
from plsc.evaluation.identity_sets import is_identity_list, load_identity_folder, load_identity_list
from plsc.evaluation.metric import DISTRACTOR
from plsc.evaluation.pair_sets import FOLDER_PAIRS, ImageFiles, load_pair_list, save_pair_list
from plsc.evaluation.pairs import choose_pairs, max_pairs
from plsc.evaluation.verification import FOLDS

ENDINGS = (".bin", ".txt")


@dataclass(frozen=True)
class Draw:
    """How pairs are drawn. num_pairs: None for FOLDER_PAIRS, or as many as there are. seed: None for 0."""

    num_pairs: int | None = None
    folds: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ChosenPairs:
    """Pairs of files. files: of all images. images: int64 [2P], pair i is entries 2i and 2i + 1. issame: bool [P].
    identities: how many there are; None where they are not known."""

    files: ImageFiles
    images: np.ndarray
    issame: np.ndarray
    identities: int | None


def choose(source: str, draw: Draw) -> ChosenPairs:
    """The pairs of a list of pairs, or pairs drawn from a folder or list of identities (`choose_pairs`).

    Raises DataError for a source that cannot be read or has too few pairs; ConfigError for numbers that cannot be, and
    for a list of pairs with numbers of a draw.
    """
    path, name = Path(source), os.path.basename(source)
    if not path.is_dir() and path.suffix == ".txt" and not is_identity_list(path):
        if given := [f"--{key.split('_')[-1]}" for key, value in vars(draw).items() if value is not None]:
            raise ConfigError(f"{given[0]}: {source} is a list of pairs, which are taken as they are; leave it out")
        found = load_pair_list(path, name)
        assert isinstance(found.images, ImageFiles)
        return ChosenPairs(found.images, np.arange(2 * len(found.issame)), found.issame, None)
    known = load_identity_folder(path, name) if path.is_dir() else load_identity_list(path, name)
    sizes = np.bincount(known.identities[known.identities != DISTRACTOR]).tolist()
    folds = FOLDS if draw.folds is None else draw.folds
    number = draw.num_pairs
    if number is None and folds >= 2:
        number = max(2 * folds, min(FOLDER_PAIRS // (2 * folds) * 2 * folds, max_pairs(sizes, folds)))
    try:
        images, issame = choose_pairs(sizes, number or 0, folds, draw.seed or 0)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    return ChosenPairs(known.images, images.reshape(-1), issame, len(sizes))


def write_set(pairs: ChosenPairs, output: str, size_of: Callable[[bytes, str], tuple[int, int]]) -> int:
    """Write a .bin of the files as they are, or a .txt that lists them; read it back. Returns the number of images.

    size_of(bytes, name): (width, height) of an image; it raises DataError for one that cannot be decoded. Raises
    DataError for such images, for images of several sizes, and if the set cannot be written or differs when it is read.
    """
    contents = _read_images(pairs, size_of)
    flags = pairs.issame.tolist()
    images = [contents[index] for index in pairs.images.tolist()]
    if output.endswith(".bin"):
        save_bin(output, images, flags)
        again = load_bin(output)
    else:
        save_pair_list(output, [pairs.files.path(index) for index in pairs.images.tolist()], flags)
        again = load_pair_list(output, output)
    if again.issame.tolist() != flags or any(one != other for one, other in zip(again.images, images)):
        raise DataError(f"{output}: is not what was written: the disk, or the images have changed meanwhile; remove it")
    return len(contents)


def _read_images(pairs: ChosenPairs, size_of: Callable[[bytes, str], tuple[int, int]]) -> dict[int, bytes]:
    """{index: bytes of the file}."""
    contents: dict[int, bytes] = {}
    first: tuple[str, tuple[int, int]] | None = None
    for index in np.unique(pairs.images).tolist():
        name = pairs.files.path(index)
        contents[index] = pairs.files[index]
        size = size_of(contents[index], name)
        first = first or (name, size)
        if size != first[1]:
            raise DataError(
                f"{name} is {size[0]} x {size[1]} pixels, {first[0]} is {first[1][0]} x {first[1][1]}; all images of "
                "a set must have one size: crop or resize them first"
            )
    return contents
