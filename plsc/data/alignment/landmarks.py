"""Reads landmark files: five points for each face, as CSV or as JSON lines.

CSV: `path,x1,y1,...,x5,y5`, with commas or tabs. With a header, columns are found by name. JSON lines: an object with
"path" and the points as "landmarks", "kps" or "keypoints": five pairs, ten numbers, or pairs by the names of NAMES.
"""

from __future__ import annotations

import array
import csv
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from plsc.data.alignment.images import ImageFiles
from plsc.data.alignment.similarity import orientation, spread
from plsc.data.containers.files import shown
from plsc.errors import DataError
from plsc.files import plain_json, safe_open
from plsc.files.hashes import hash_file

COLUMNS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5")
NAMES = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_POINTS = ("landmarks", "kps", "keypoints")
_MOST_CHARACTERS = 1 << 20  # of a line
_EXCHANGED = [1, 0, 2, 4, 3]  # left for right


@dataclass
class Landmarks:
    """The points of faces by the path of their image.

    key: makes the paths of the file those of ``faces``. faces: {path: indices of its faces}. digest: of the file.
    notes: lines for a log.
    """

    key: Callable[[str], str]
    digest: str = ""
    faces: dict[str, int | list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _values: array.array = field(default_factory=lambda: array.array("d"))

    def add(self, path: str, values: Iterable[float] | None) -> None:
        """Add a face by its ten numbers; None for an image without a face."""
        if values is None:
            return
        index = len(self._values) // len(COLUMNS)
        self._values.extend(values)
        path = self.key(path)
        before = self.faces.setdefault(path, index)
        if before != index:
            self.faces[path] = [*([before] if isinstance(before, int) else before), index]

    def find(self, path: str, pixels: np.ndarray) -> list[np.ndarray]:
        """The faces of an image, points float64 [5, 2], the largest first."""
        known = self.faces.get(path, [])
        indices = [known] if isinstance(known, int) else known
        found = [np.array(self._values[10 * i : 10 * i + 10]).reshape(5, 2) for i in indices]
        return sorted(found, key=spread, reverse=True) if len(found) > 1 else found


def read_landmarks(path: str, key: Callable[[str], str] = os.path.normpath) -> Landmarks:
    """Read a file; `{` as its first character means JSON lines. Raises DataError that names the file and the line."""
    try:
        found = Landmarks(key, hash_file(path))
        with safe_open.open_text(path, safe_open.LIST, "utf-8-sig", "surrogateescape", "") as file:
            _add_rows(found, file, path)
    except OSError as error:
        raise DataError(f"--landmarks {shown(path)}: cannot be read: {error.strerror or error}") from error
    if not found.faces:
        raise DataError(
            f"--landmarks {shown(path)}: has no landmarks; a line is path,x1,y1,...,x5,y5, or a JSON object with path "
            "and landmarks"
        )
    return found


def _add_rows(found: Landmarks, file: TextIO, path: str) -> None:
    last = 0
    try:
        first = _first_line(file)
        rows = _json_rows(file) if first.startswith("{") else _csv_rows(file, first, found)
        for line, image, values in rows:
            last = line
            found.add(image, values)
    except (ValueError, csv.Error) as error:
        at = error.line if isinstance(error, _BadLine) else last + 1
        raise DataError(f"--landmarks {shown(path)}:{at}: {error}") from None


class _BadLine(ValueError):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file. Raises _BadLine for one that no landmarks are in, before it fills the memory."""
    for number in itertools.count(1):
        line = file.readline(_MOST_CHARACTERS)
        if len(line) == _MOST_CHARACTERS:
            raise _BadLine(number, f"the line has {_MOST_CHARACTERS:,} characters or more")
        if not line:
            return
        yield line


def _first_line(file: TextIO) -> str:
    line = next((line for line in _lines(file) if line.strip()), "")
    file.seek(0)
    return line.strip()


def _json_rows(file: TextIO) -> Iterator[tuple[int, str, list[float] | None]]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            yield number, *_from_json(plain_json.loads(line))
        except ValueError as error:
            raise _BadLine(number, f"{error}; a line is a JSON object with path and landmarks") from None


def _from_json(row: Any) -> tuple[str, list[float] | None]:
    if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not row["path"]:
        raise ValueError("has no path")
    if all(name in row for name in COLUMNS):
        return row["path"], _numbers([row[name] for name in COLUMNS])
    keys = [key for key in _POINTS if key in row]
    if len(keys) != 1:
        raise ValueError(f"needs one of {', '.join(_POINTS)}, or x1, y1 to x5, y5")
    points = row[keys[0]]
    if points is None or points == []:
        return row["path"], None
    if isinstance(points, dict):
        if missing := [name for name in NAMES if name not in points]:
            raise ValueError(f"{keys[0]} lacks {missing[0]}; there must be {', '.join(NAMES)}")
        return row["path"], _in_image_order(_numbers([points[name] for name in NAMES]))
    return row["path"], _numbers(points if isinstance(points, list) else [points])


def _numbers(values: list) -> list[float]:
    """Ten numbers, flat or in pairs. Raises ValueError."""
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    pairs = all(isinstance(value, list) and len(value) == 2 for value in values)
    if len(flat) != len(COLUMNS) or not (pairs or len(values) == len(COLUMNS)):
        raise ValueError(f"has {len(flat)} numbers; five points are x1, y1 to x5, y5")
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in flat):
        raise ValueError("not all coordinates are numbers")
    return [float(value) for value in flat]


def _in_image_order(values: list[float]) -> list[float]:
    """Points by names, left before right as seen in the image: some detectors name the sides as the person has them."""
    points = np.array(values).reshape(5, 2)
    return (points[_EXCHANGED] if orientation(points) < 0 else points).reshape(-1).tolist()


def _csv_rows(file: TextIO, first: str, found: Landmarks) -> Iterator[tuple[int, str, list[float] | None]]:
    reader = csv.reader(_lines(file), delimiter="\t" if "\t" in first else ",")
    places: list[int] = []  # of path and coordinates in a row
    fields = 0
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        try:
            if not places:
                header = _header(row, found)
                places, fields = header or list(range(1 + len(COLUMNS))), len(row) if header else 1 + len(COLUMNS)
                if header:
                    continue
            if len(row) != fields:
                raise ValueError(f"has {len(row)} fields, not {fields}; without a header it is path,x1,y1,...,x5,y5")
            yield reader.line_num, *_from_csv([row[place].strip() for place in places])
        except ValueError as error:
            raise _BadLine(reader.line_num, str(error)) from None


def _header(row: list[str], found: Landmarks) -> list[int]:
    """Where path and coordinates are, by a header; [] if the first line is none. Raises ValueError."""
    names = [cell.strip().lower() for cell in row]
    if "path" not in names and not all(name in names for name in COLUMNS):
        return []
    wanted = ("path", *COLUMNS)
    if wrong := [name for name in wanted if names.count(name) != 1]:
        raise ValueError(f"the header has {names.count(wrong[0])} columns {wrong[0]}; it needs {', '.join(wanted)}")
    if others := [name for name in names if name not in wanted]:
        found.notes.append(f"landmarks: columns that are not used: {', '.join(others)[:200]}")
    return [names.index(name) for name in wanted]


def _from_csv(cells: list[str]) -> tuple[str, list[float] | None]:
    path, *values = cells
    if not path:
        raise ValueError("has no path")
    if not any(values):
        return path, None
    try:
        return path, [float(value) for value in values]
    except ValueError:
        raise ValueError(f"not all coordinates are numbers: {', '.join(values)[:100]}") from None


def require_of(landmarks: Landmarks, images: ImageFiles) -> list[str]:
    """Lines for a log about landmarks of other images. Raises DataError if all of them are."""
    strangers = set(landmarks.faces).difference(images.paths)
    if len(strangers) == len(landmarks.faces):
        raise DataError(
            f"no image has landmarks: their file names {shown(next(iter(landmarks.faces)))}, the images are "
            f"{shown(images.paths[0])} and so on in {shown(images.root)}; paths must be relative to it, or absolute"
        )
    count = f"{len(strangers):,} images that are not there"
    return [f"landmarks: {count}, such as {shown(min(strangers))}"] if strangers else []
