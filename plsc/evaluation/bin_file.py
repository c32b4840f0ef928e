"""Verification sets in insightface's `.bin` layout: a pickle of (images, issame); pair i is images 2i and 2i+1."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from plsc.errors import ConfigError, DataError
from plsc.evaluation.output_files import whole_file
from plsc.files import safe_open
from plsc.files.safe_pickle import as_array, load_plain

Image = Union[bytes, np.ndarray]
PathLike = Union[str, "os.PathLike[str]"]
WHAT = "verification set"


@dataclass(frozen=True)
class PairSet:
    """P pairs of images.

    name: the name of the set. images: 2P images, each the bytes of an image file (JPEG, PNG, ...) or a read-only uint8
    array [H, W] or [H, W, 3]. issame: bool [P], whether both images of pair i show the same identity.
    """

    name: str
    images: Sequence[Image]
    issame: np.ndarray


def load_bin(path: PathLike) -> PairSet:
    """Read a `.bin` written by Python 2 or 3. Memory: the size of the file, as the images stay encoded.

    Raises DataError that names the file if it is missing or damaged, has another structure, or tries to load objects
    other than images and flags.
    """
    path = Path(path)
    try:
        with safe_open.open_bytes(path, safe_open.IMAGE_SET) as file:
            content = load_plain(file)
    except OSError as error:
        raise DataError(f"verification set {path}: cannot be read: {error.strerror or error}") from error
    except DataError as error:
        raise DataError(f"verification set {path}: {error}") from error
    except Exception as error:  # a damaged pickle may raise any type
        raise DataError(f"verification set {path}: empty, truncated or no pickle ({_shorten(error)})") from error
    try:
        return PairSet(path.stem, *_check_content(content))
    except DataError as error:
        raise DataError(f"verification set {path}: {error}") from error


def is_bin(path: PathLike) -> bool:
    """Whether a file may be a `.bin`, by its first byte: a pickle of protocol 2 or later, or of protocol 0."""
    try:
        with safe_open.open_bytes(path, safe_open.IMAGE_SET) as file:
            return file.read(1) in (b"\x80", b"(")
    except OSError:
        return False


def save_bin(path: PathLike, images: Sequence[Image], issame: Sequence[bool]) -> None:
    """Write a `.bin` that `load_bin` and insightface's readers (Python 3) can read. The write is atomic.

    images: 2P bytes or uint8 arrays; issame: P flags. Prefer bytes: an array may not be readable by a much older or
    newer NumPy. Raises DataError for wrong lengths or types, and if the file cannot be written.
    """
    path = Path(path)
    content: tuple[list[Image], list[bool]]
    try:
        checked_images, flags = _check_content((list(images), list(issame)))
        content = (checked_images, flags.tolist())
    except DataError as error:
        raise DataError(f"verification set {path}: not written: {error}") from error
    with whole_file(path, WHAT) as file:
        pickle.dump(content, file, protocol=4)


def find_targets(dataset_dir: PathLike, names: Sequence[str]) -> list[Path]:
    """Paths of the sets, in the order of `names`: `lfw` and `lfw.bin` are lfw.bin in dataset_dir, `pairs.txt` that pair
    list, `lfw/` that folder of identities.

    Raises ConfigError if `names` is a string, or has an empty or duplicate name; DataError that lists the missing sets
    and those in the directory.
    """
    if isinstance(names, str):
        raise ConfigError(f"val_targets: {names!r} is one string; give a list of names")
    wanted = [name.strip() for name in names]
    files = [name if name.endswith(("/", ".txt", ".bin")) else f"{name}.bin" for name in wanted]
    if "" in wanted or len(set(files)) != len(files):
        raise ConfigError(f"val_targets: {wanted}: names must be unique and not empty (lfw is lfw.bin)")
    directory = Path(dataset_dir)
    if not directory.is_dir():
        raise DataError(
            f"data.dataset_dir: {directory} is not a directory; needed for data.val_targets {', '.join(wanted)}"
        )
    paths = [directory / file for file in files]
    missing = [
        file for file, path in zip(files, paths) if not (path.is_dir() if file.endswith("/") else path.is_file())
    ]
    if missing:
        found = ", ".join(_list_sets(directory)) or "none"
        raise DataError(
            f"val_targets: {directory} has no {', '.join(missing)}; there are (lfw stands for lfw.bin): {found}"
        )
    return paths


def _list_sets(directory: Path) -> list[str]:
    """What could be a set: .bin and .txt files, folders."""
    files = [path.name for path in directory.iterdir() if path.suffix in (".bin", ".txt") and path.is_file()]
    folders = [f"{path.name}/" for path in directory.iterdir() if path.is_dir()]
    return sorted(files) + sorted(folders)[:20]


def _check_content(content: Any) -> tuple[list[Image], np.ndarray]:
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise DataError(f"holds {_describe(content)}, expected a pair (images, issame)")
    images, issame = _sequence("images", content[0]), _sequence("issame", content[1])
    if len(issame) == 0 or len(images) != 2 * len(issame):
        raise DataError(f"{len(images)} images for {len(issame)} pairs, expected two per pair, at least one pair")
    # Each distinct array is converted once: a small file may refer to one large array a million times.
    arrays = [as_array(image) for image in images]
    done: dict[int, Image] = {}
    for i, array in enumerate(arrays):
        if id(array) not in done:
            done[id(array)] = _check_image(i, array)
    return [done[id(array)] for array in arrays], _check_flags(issame)


def _sequence(what: str, value: Any) -> Any:
    value = as_array(value)
    if isinstance(value, (list, tuple)) or isinstance(value, np.ndarray) and value.ndim:
        return value
    raise DataError(f"{what} is {_describe(value)}, expected a list")


def _check_image(index: int, image: Any) -> Image:
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        # cv2.imencode returns the bytes of a file as [n] or [n, 1]
        if image.ndim == 1 or image.ndim == 2 and image.shape[1] == 1:
            return image.tobytes()
        if image.ndim == 2 or image.ndim == 3 and image.shape[2] in (1, 3):
            return image
    if isinstance(image, (bytes, bytearray)) and image:
        return bytes(image)
    raise DataError(
        f"image {index} is {_describe(image)}, expected bytes or a uint8 array [H, W] or [H, W, 3], not empty"
    )


def _check_flags(issame: Any) -> np.ndarray:
    flags = np.zeros(len(issame), bool)
    for i, flag in enumerate(issame):
        if not isinstance(flag, (bool, int, np.bool_, np.integer)) or flag not in (0, 1):
            raise DataError(f"issame[{i}] is {_describe(flag)}, expected True or False")
        flags[i] = bool(flag)
    return flags


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {list(value.shape)}"
    if isinstance(value, (list, tuple, bytes, bytearray, str, dict)):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__} ({value})" if isinstance(value, (int, float)) else f"a {type(value).__name__}"


def _shorten(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120].replace("\n", " ")
