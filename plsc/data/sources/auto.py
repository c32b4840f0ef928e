"""`data.dataset: auto`: the choice of a source by the contents of the directory."""

from __future__ import annotations

import os
from dataclasses import dataclass

from plsc.data.directory import Directory, list_directory
from plsc.data.sources import Source
from plsc.errors import DataError
from plsc.registry import SOURCES


@dataclass(frozen=True)
class Choice:
    """The name of a source, and a log line with the reason."""

    name: str
    line: str


@SOURCES.register("auto")
class Auto:
    """Choose by the contents of `dataset_dir`: a label list, else a container, else a folder of identities.

    It is not a source itself: a run uses the source that ``choose`` returns, as if it had been set.
    """

    ready = False

    def __init__(self, dataset_dir: str | os.PathLike, label_file: str | os.PathLike, **_options) -> None:
        self._dataset_dir, self._label_file = dataset_dir, label_file

    def choose(self) -> Choice:
        """Return the source with the first precedence among those that recognise the directory.

        Raises DataError if the directory cannot be read, if no source recognises it, or if two of the same precedence
        do.
        """
        directory = list_directory(self._dataset_dir, self._label_file)
        where = f"data.dataset_dir={directory.path!r}"
        found: list[tuple[int, str, str]] = []
        for entry in SOURCES.entries():
            source = entry.value
            reason = source.recognise(directory) if issubclass(source, Source) else ""
            if reason:
                found.append((source.precedence, entry.name, reason))
        if not found:
            raise DataError(f"{where}: {_nothing(directory)}")
        found.sort()  # by precedence, then by name
        same = [(name, reason) for precedence, name, reason in found if precedence == found[0][0]]
        if len(same) > 1:
            both = ", ".join(f"{name} ({reason})" for name, reason in same)
            raise DataError(f"{where}: holds data of several kinds: {both}; set data.dataset to one of them")
        _, name, reason = found[0]
        rest = "".join(f"; also there, and not read: {other} ({why})" for _, other, why in found[1:])
        return Choice(name, f"data.dataset: auto takes {name}: {directory.path} has {reason}{rest}")


def _nothing(directory: Directory) -> str:
    sources = [entry.value for entry in SOURCES.entries() if issubclass(entry.value, Source)]
    wanted = ", ".join(source.looks_for for source in sources if source.looks_for)
    return (
        f"no training data found among {len(directory.files)} file(s) and {len(directory.folders)} folder(s); looked "
        f"for: {wanted}; data.label_file={directory.label_file!r}; correct the directory, or set data.dataset; for a "
        "first run without data set data.dataset: synthetic"
    )
