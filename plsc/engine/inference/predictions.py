"""The files of predict(): features and a table, written in pieces, so that an interrupted run can continue."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from plsc.engine.inference import output_dir
from plsc.files import plain_json, safe_open
from plsc.files.atomic import flush, write_bytes
from plsc.serving.classification import name_of
from plsc.serving.gallery import FEATURES, TABLE

STATE = "predictions.json"
CLASSES = "classes.part"  # beside unfinished features: label and score of each
_CLASS = np.dtype([("label", "<i8"), ("score", "<f4")])


class PredictionFiles:
    """The directory ``final`` with features.npy float32 [M, E], pictures.csv (row, path) and predictions.json.

    It is written to a temporary directory until it is complete. ``made_by``: plain JSON that identifies the model by
    the hashes of its weights. Unfinished results are continued if ``made_by`` is equal and the images so far are the
    same files: path, size and modification time. ``has_files``: the paths are files; otherwise nothing is continued.
    ``class_names``: None for a model without classes; else the table has label, name and score of the best class.
    """

    def __init__(
        self,
        final: str,
        paths: Sequence[str],
        size: int,
        made_by: dict[str, Any],
        has_files: bool,
        class_names: Sequence[str] | None = None,
    ):
        output_dir.check_free(final, STATE)
        self._final, self._paths, self._size, self._has_files = final, paths, size, has_files
        self._class_names = class_names
        self._made_by = json.loads(json.dumps(made_by))
        self._header = npy_header(len(paths), size)
        self._prints = Fingerprints(paths)
        self.is_complete = has_files and self._continues(final) == len(paths)
        self.done = len(paths) if self.is_complete else self._open()

    def append(self, features: np.ndarray, labels: np.ndarray | None = None, scores: np.ndarray | None = None) -> None:
        """The features of the next images, and if there are classes their labels and scores, on the disk when this
        returns."""
        if self._class_names is not None:
            classes = np.zeros(len(features), _CLASS)
            classes["label"], classes["score"] = labels, scores
            self._classes.write(classes.tobytes())
            flush(self._classes)
        self._file.write(np.ascontiguousarray(features, "<f4").tobytes())
        flush(self._file)
        self.done += len(features)
        self._write_state()

    def finish(self) -> None:
        """Write the table and make all of it visible."""
        self._file.close()
        with open(self._aside(TABLE), "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = csv.writer(file)
            table.writerow(["row", "path", *([] if self._class_names is None else ["label", "name", "score"])])
            table.writerows(self._rows())
        if self._class_names is not None:
            os.unlink(self._aside(CLASSES))
        output_dir.publish(self._final)

    def _rows(self) -> Iterator[tuple]:
        """The lines of the table."""
        if self._class_names is None:
            yield from enumerate(self._paths)
            return
        self._classes.close()
        with safe_open.open_bytes(self._aside(CLASSES), safe_open.TENSORS) as file:
            for row, path in enumerate(self._paths):
                label, score = np.frombuffer(file.read(_CLASS.itemsize), _CLASS)[0].item()
                yield row, path, label, name_of(self._class_names, label), f"{score:.6g}"

    def _open(self) -> int:
        """Open the features to append to; returns how many are there."""
        unfinished = output_dir.unfinished_dir(self._final)
        done = self._continues(unfinished) if self._has_files else None
        if done and self._class_names is not None and _size_of(self._aside(CLASSES)) < _CLASS.itemsize * done:
            done = None
        if done is None:
            output_dir.create_unfinished(self._final)
            done = 0
        if self._class_names is not None:
            self._classes = open(self._aside(CLASSES), "r+b" if done else "wb")
            self._classes.truncate(_CLASS.itemsize * done)
            self._classes.seek(0, os.SEEK_END)
        self._file = open(self._aside(FEATURES), "r+b" if done else "wb")
        self._file.write(self._header)
        self._file.truncate(len(self._header) + 4 * self._size * done)
        self._file.seek(0, os.SEEK_END)
        return done

    def _continues(self, directory: str) -> int | None:
        """How many of the images are done in ``directory``; None where it cannot be continued."""
        try:
            state = plain_json.loads(safe_open.read_bytes(os.path.join(directory, STATE), safe_open.SETTINGS))
            done, header = state["done"], state["header_bytes"]
            size = os.path.getsize(os.path.join(directory, FEATURES))
            pictures, made_by = state["pictures"], state["made_by"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        counts = type(done) is int and 0 < done <= len(self._paths) and header == len(self._header)
        same = counts and made_by == self._made_by
        if not same or size < header + 4 * self._size * done:
            return None
        return done if self._prints.of_first(done) == pictures else None

    def _write_state(self) -> None:
        state = {
            "made_by": self._made_by,
            "done": self.done,
            "header_bytes": len(self._header),
            "pictures": self._prints.of_first(self.done) if self._has_files else "",
        }
        write_bytes(self._aside(STATE), json.dumps(state, indent=2).encode())

    def _aside(self, name: str) -> str:
        return os.path.join(output_dir.unfinished_dir(self._final), name)


def _size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


class Fingerprints:
    """A hash over the first n files of a list: their paths, sizes and times of change."""

    def __init__(self, paths: Sequence[str]):
        self._paths = paths
        self._restart()

    def of_first(self, count: int) -> str:
        """Cheap for growing counts."""
        if count < self._count:
            self._restart()
        for path in self._paths[self._count : count]:
            try:
                status = os.stat(path)
                text = f"{status.st_size} {status.st_mtime_ns} "
            except OSError:
                text = "missing "
            self._hash.update(text.encode() + os.fsencode(path) + b"\0")
        self._count = count
        return self._hash.hexdigest()

    def _restart(self) -> None:
        self._count, self._hash = 0, hashlib.sha256()


def npy_header(rows: int, size: int) -> bytes:
    """The header of a .npy file of float32 [rows, size]."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (rows, size)})
    return buffer.getvalue()
