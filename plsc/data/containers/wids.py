"""The index of shards that WebDataset's `wids` reads: JSON that lists them, with the samples of each.

{"wids_version": 1, "shardlist": [{"url": "train-000000.tar", "nsamples": 10000, "filesize": 91234567}, ...]}; in place
of or beside "shardlist", "datasets": a list of {"shardlist": [...], "base": "directory"}. "filesize", "name", "base"
are optional. Source: the module wids of webdataset.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from plsc.data.containers.files import read_small, shown
from plsc.errors import DataError
from plsc.files import plain_json, safe_open

VERSION = 1


@dataclass(frozen=True)
class Shard:
    """A shard of an index. samples, size: as the index says; None if it does not."""

    path: str
    samples: int | None
    size: int | None


def read_shards(path: str) -> list[Shard]:
    """The shards that the index ``path`` lists, in order. A relative url is relative to its directory, or to "base".

    Raises DataError for another format, and for shards that are not files: this reads no network.
    """
    try:
        index = plain_json.loads(read_small(path, safe_open.MANIFEST))
    except ValueError as error:
        raise DataError(f"{shown(path)}: {error}; it must be an index of shards as wids reads it") from None
    if not isinstance(index, dict) or index.get("wids_version", VERSION) != VERSION:
        version = index.get("wids_version") if isinstance(index, dict) else None
        raise DataError(f"{shown(path)}: no index of wids, version {VERSION} (wids_version is {version!r:.40})")
    parts = [("", index)] if "shardlist" in index else []
    datasets = index.get("datasets", [])
    for number, part in enumerate(datasets if isinstance(datasets, list) else [datasets]):
        parts.append((f"datasets[{number}]: ", part))
    found = [shard for where, part in parts for shard in _shards(path, where, part)]
    if not found:
        raise DataError(
            f'{shown(path)}: lists no shards: it needs "shardlist": [{{"url": "x.tar", "nsamples": 1}}, ...]'
        )
    return found


def _shards(path: str, where: str, part: Any) -> list[Shard]:
    """The shards of the index, or of one of its data sets. Raises DataError."""
    shards = part.get("shardlist") if isinstance(part, dict) else None
    if not isinstance(shards, list):
        raise DataError(f'{shown(path)}: {where}has no list "shardlist"; an index of other indices is not read')
    base = _local(f"{shown(path)}: {where}base", part.get("base", ""))
    found = []
    for number, shard in enumerate(shards):
        name = f"{shown(path)}: {where}shardlist[{number}]"
        if not isinstance(shard, dict) or "url" not in shard:
            raise DataError(f'{name}: is {shard!r:.60}; it must be a mapping with "url"')
        if shard.get("weight", 1) != 1:
            raise DataError(f"{name}: weight {shard['weight']!r:.40}: each image is read once an epoch; remove weights")
        place = os.path.join(os.path.dirname(path), base, _local(f"{name}: url", shard["url"]))
        found.append(Shard(place, _count(name, shard, "nsamples"), _count(name, shard, "filesize")))
    return found


def _local(name: str, url: Any) -> str:
    """The path of a url. Raises DataError if it is none of a file."""
    if not isinstance(url, str) or "\0" in url:
        raise DataError(f"{name}: is {url!r:.60}; it must be a path")
    url = url[len("file:") :] if url.startswith("file:") else url
    if "://" in url or url.startswith("pipe:"):
        raise DataError(f"{name}: {url!r:.200} is no file; copy the shards to a disk, and name their paths")
    return url


def _count(name: str, shard: dict[str, Any], key: str) -> int | None:
    value = shard.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise DataError(f"{name}: {key} is {value!r:.40}; it must be a whole number")
    return value
