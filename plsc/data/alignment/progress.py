"""The progress of an alignment on disk: how many images are done, and a table of those that were refused."""

from __future__ import annotations

import json
import os
from types import TracebackType
from typing import Any

from plsc.data.containers.files import shown
from plsc.errors import DataError
from plsc.files import plain_json, safe_open
from plsc.files.atomic import flush_file_system, whole_file, write_bytes

STATE, REFUSED = "align.json", "refused.tsv"


class Progress:
    """Progress in ``directory``, which is created, or holds an interrupted job that is continued.

    job: a digest of the job. done: images that are done, from the first on. Raises DataError if the directory holds
    something else, OSError if it cannot be written.
    """

    def __init__(self, directory: str, job: str, count: int) -> None:
        self._directory, self._state_path = directory, os.path.join(directory, STATE)
        self._state = self._read({"job": job, "images": count, "done": 0, "bytes": 0, "refused": {}})
        self._file = open(os.path.join(directory, REFUSED), "ab")
        self._file.truncate(self._state["bytes"])

    @property
    def done(self) -> int:
        return self._state["done"]

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, done: int, refused: list[tuple[str, str, str]]) -> None:
        """More images are done. refused: (path, kind, text) of those among them."""
        for path, kind, text in refused:
            line = "\t".join(_one_field(one) for one in (path, kind, text)) + "\n"
            self._file.write(line.encode("utf-8", "surrogateescape"))
            number, example = self._state["refused"].get(kind, (0, f"{shown(path)}: {text}"))
            self._state["refused"][kind] = [number + 1, example]
        self._state["done"] = done

    def save(self) -> None:
        """Flush it to disk, and the images before it."""
        self._file.flush()
        flush_file_system(self._directory)
        self._state["bytes"] = os.fstat(self._file.fileno()).st_size
        write_bytes(self._state_path, json.dumps(self._state).encode())

    def finish(self, listed: str) -> dict[str, tuple[int, str]]:
        """Write the table to ``listed``, if there is one. Returns {kind: (count, an example)}."""
        self.save()
        if self._state["refused"]:
            with safe_open.open_bytes(self._file.name, safe_open.LIST) as table, whole_file(listed) as file:
                while part := table.read(1 << 20):
                    file.write(part)
        return {kind: (count, example) for kind, (count, example) in self._state["refused"].items()}

    def _read(self, fresh: dict[str, Any]) -> dict[str, Any]:
        place = self._directory
        if os.path.lexists(self._state_path):
            try:
                state = plain_json.loads(safe_open.read_bytes(self._state_path, safe_open.SETTINGS))
            except ValueError as error:
                raise DataError(f"{shown(self._state_path)}: {error}; remove {shown(place)}") from None
            same = isinstance(state, dict) and all(type(state.get(key)) is type(value) for key, value in fresh.items())
            if not same or state["job"] != fresh["job"] or state["images"] != fresh["images"]:
                raise DataError(f"{shown(place)}: holds other images or points half aligned; remove it")
            return state
        if os.listdir(place):
            raise DataError(f"{shown(place)}: is there, and no alignment that could be continued; remove it")
        write_bytes(self._state_path, json.dumps(fresh).encode())
        return fresh


def remove_progress(directory: str) -> None:
    """Remove the files of the progress from a directory that is complete."""
    for name in (REFUSED, STATE):
        os.unlink(os.path.join(directory, name))


def _one_field(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ").replace("\r", " ")
