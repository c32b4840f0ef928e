"""Shards of tar files in the layout of WebDataset."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from plsc.data.containers.files import shown
from plsc.data.containers.labelled import ExtentSource
from plsc.data.containers.samples import Samples, add_shard
from plsc.data.containers.wids import Shard, read_shards
from plsc.data.indexing import Progress
from plsc.data.shared_index import Made, share
from plsc.data.sources import Directory, register_source
from plsc.errors import DataError
from plsc.files.array_file import Arrays

_MOST_SHARDS = 1_000_000
_BRACES = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")


@register_source("tar", source="WebDataset's shards")
class TarSource(ExtentSource):
    """Shards of tar files by WebDataset's conventions: `00001.jpg` with `00001.cls` or `00001.json`.

    dataset_dir: the directory. shards: their names in it, `train-{000000..000123}.tar` or `train-*.tar`; all `*.tar`
    by default, sorted by name; or `index.json`, an index of shards as wids reads it. label_key: the key of the label in
    a .json that is a mapping. num_classes: None for the largest label + 1. Images are in the order of shards and
    members. Memory: 16 bytes per image, once on a machine.
    """

    looks_for = "*.tar (tar)"

    @classmethod
    def recognise(cls, directory: Directory) -> str:
        return directory.first(".tar")

    def __init__(
        self,
        dataset_dir: str | os.PathLike,
        num_classes: int | None,
        shards: str = "*.tar",
        label_key: str = "label",
    ) -> None:
        self._directory = os.fspath(dataset_dir)
        listed = read_shards(os.path.join(self._directory, shards)) if shards.endswith(".json") else []
        paths = [shard.path for shard in listed] or list(find_shards(self._directory, shards))
        made = Made("tar", paths, [label_key])
        index = share(made, shown(self._directory), lambda progress: _build(paths, label_key, progress))
        self._set_index(paths, index)
        self._set_labels(index.content.arrays["labels"], num_classes, os.path.join(self._directory, "tar"))
        _compare(listed, index.content.facts)

    def read(self, index: int) -> tuple[bytes, int]:
        return self.bytes_of(index), int(self.labels[index])

    @property
    def place(self) -> str:
        return f"{shown(self._directory)} ({len(self.files.paths)} shards)"


def _build(paths: list[str], label_key: str, progress: Progress) -> Arrays:
    samples, start, sizes, counts = Samples(), 0, [], []
    for path in paths:
        before = len(samples.labels)
        sizes.append(add_shard(samples, path, start, label_key, progress))
        start += sizes[-1]
        counts.append(len(samples.labels) - before)
    positions, lengths, labels = samples.arrays()
    facts = {"file_sizes": sizes, "file_images": counts}
    return Arrays({"positions": positions, "sizes": lengths, "labels": labels}, facts)


def _compare(listed: list[Shard], facts: Mapping[str, Any]) -> None:
    """Raise DataError for the first shard that is not as its index says."""
    for shard, size, images in zip(listed, facts["file_sizes"], facts["file_images"]):
        for said, found, what in ((shard.samples, images, "images"), (shard.size, size, "bytes")):
            if said is not None and said != found:
                raise DataError(
                    f"{shown(shard.path)}: has {found:,} {what}, the index of shards says {said:,}: it was not copied "
                    "whole, or the index is of other shards"
                )


def find_shards(directory: str, pattern: str, option: str = "shards") -> Iterator[str]:
    """Yield the paths of shards: all of a range in braces, or existing files that match `*` and `?`. option: the
    setting of the pattern. Raises DataError."""
    braces = _BRACES.search(pattern)
    if braces is not None:
        first, last = int(braces[1]), int(braces[2])
        if not first <= last < first + _MOST_SHARDS or _BRACES.search(pattern, braces.end()):
            raise DataError(
                f"data.options: {option}={pattern!r}: one range in braces, from less to more, of at most "
                f"{_MOST_SHARDS:,} shards"
            )
        for number in range(first, last + 1):
            name = f"{pattern[: braces.start()]}{number:0{len(braces[1])}d}{pattern[braces.end() :]}"
            yield os.path.join(directory, name)
        return
    folder, _, names = os.path.join(directory, pattern).rpartition("/")
    try:
        found = [name for name in os.listdir(folder) if fnmatch.fnmatchcase(name, names) and not name.startswith(".")]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{shown(folder)}: cannot be listed: {reason}; check data.dataset_dir") from error
    if not found:
        raise DataError(f"{shown(folder)}: has no file {names!r}; check data.dataset_dir and data.options: {option}")
    for name in sorted(found, key=os.fsencode):
        yield os.path.join(folder, name)
