"""What is known of millions of images, in one file that all processes of a machine map.

The first process that needs the index of a large data set, or the order of an epoch of it, makes it, while the others
wait. If the data are damaged, it leaves its error to those who wait. An order is kept while a process uses it, and
until another one is stored. The index is kept in the user's cache for later runs. It is made anew if one of the files
that it was made from has another size, modification time or contents at its beginning, middle or end, and if the cached
file is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plsc.data.indexing import Progress
from plsc.data.label_list import printable
from plsc.errors import DataError
from plsc.files import array_file, safe_open
from plsc.files.array_file import Arrays
from plsc.files.private_directory import Directory, open_directory, user_cache

LEAST_ORDER = 1 << 24  # samples; the order of fewer takes less than 64 MB
LEAST_BYTES = 1 << 30  # of the files; the index of smaller ones takes a few megabytes
_PLACE, _ORDER, _FAILED = "index", "order", "failed-"
_VERSION = 3  # of what sources store
_OTHERS_SECONDS = 7 * 86400  # not used for so long: an index of another machine, or of another name of this one
_FAILED_SECONDS = 3600  # the error of an index is for those who wait at that moment
_LOOK_BYTES = 4096  # read in three places of a file
_READ_WHOLE = 1 << 20  # a smaller file is read as a whole


@dataclass(frozen=True)
class Made:
    """What an index is made from. kind: what is made, with its version if that changes. paths: the files. options: of
    the index, plain JSON. least: if the files have fewer bytes in all, each process has its own index."""

    kind: str
    paths: Sequence[str]
    options: Sequence[Any] = ()
    least: int | None = None

    @property
    def is_large(self) -> bool:
        """Whether it is worth a file."""
        return sum(map(_size, self.paths)) >= (LEAST_BYTES if self.least is None else self.least)

    @property
    def name(self) -> str:
        """The name of the file in the cache: the same for new contents of the same files."""
        return self.prefix + _node()

    @property
    def prefix(self) -> str:
        """How the names begin on all machines, which may share a cache."""
        paths = [os.path.realpath(path) for path in self.paths]
        return f"{self.kind}-{_digest([paths, list(self.options)])[:24]}-"

    def key(self) -> str:
        """What differs for other contents of the files. Raises DataError if one cannot be read."""
        return self.key_of([_fingerprint(path) for path in self.paths])

    def key_of(self, contents: list) -> str:
        """The key of an index of these contents, plain JSON."""
        return _digest([_VERSION, self.kind, list(self.options), contents])

    def is_current(self, content: Arrays) -> bool:
        """Whether a stored index of this key can be used. For one whose key does not tell all."""
        return True

    def read(self, cache: Directory, key: str) -> Arrays | None:
        """The stored index of this key, None if there is none that can be used. Raises OSError."""
        found = array_file.read(cache, self.name, key)
        return found if found is not None and self.is_current(found) else None


@dataclass(frozen=True)
class Index:
    """content: the arrays, read-only if they are shared. notes: a line for the log, if the index is large."""

    content: Arrays
    notes: Sequence[str] = field(default=())


def share(made: Made, place: str, build: Callable[[Progress], Arrays]) -> Index:
    """The index of large files, shared by all processes of the machine; of small ones just ``build(progress)``.

    place: the data in messages. build: tells ``progress`` how far it is. Where the cache cannot be used each process
    has its own index, and the note says so. Raises DataError of ``build``, also of the process that this one waited
    for, and for files that change meanwhile.
    """
    if not made.is_large:
        return Index(build(Progress(place)))
    begun, key = time.time(), made.key()
    progress, own = Progress(place), _Own()
    try:
        with open_directory(user_cache(_PLACE)) as cache:
            found = made.read(cache, key)
            array_file.mark_used(cache, made.name)
            how, time_taken = "kept from before", ""
            if found is None:
                with cache.locked(f"lock-{made.name}", progress.waits):
                    found = made.read(cache, key)  # another process may have made it
                    if found is None:
                        progress = Progress(place)
                        _raise_failure(made, key, cache, begun)
                        found = _make(made, key, cache, lambda: build(progress), own)
                        how, time_taken = "made now", f" ({progress.seconds:.0f} s)"
            where = printable(os.fsencode(cache.path / made.name)) + time_taken
            return Index(found, [f"{place}: index {how}, shared by all processes of this machine: {where}"])
    except OSError as error:
        reason = " ".join(str(error).split())
        note = f"{place}: each process keeps its own index, as the cache cannot be used ({reason})"
        return Index(build(Progress(place)) if own.content is None else own.content, [note])


def is_large_order(count: int) -> bool:
    """Whether ``share_order`` shares the order of so many samples."""
    return count >= LEAST_ORDER


def share_order(key: Sequence[Any], count: int, draw: Callable[[], np.ndarray]) -> np.ndarray:
    """``draw()``, the order of an epoch, [count]; of many samples shared by all processes of the machine, read-only.

    key: what the order depends on, plain JSON. Orders that no process uses are removed when one is stored. Where the
    cache cannot be used each process draws its own, the same.
    """
    if not is_large_order(count):
        return draw()
    digest = _digest([_VERSION, count, *key])
    prefix = f"{_ORDER}-{_node()}-"
    name = prefix + digest[:24]
    try:
        with open_directory(user_cache(_PLACE)) as cache:
            with cache.locked(f"lock-{_ORDER}"):
                found = array_file.read(cache, name, digest)
                if found is None:
                    array_file.remove_unused(cache, prefix, keep=name)
                    array_file.write(cache, name, digest, Arrays({_ORDER: draw()}))
                    found = array_file.read(cache, name, digest)
            return draw() if found is None else found.arrays[_ORDER]
    except OSError:
        return draw()


def temporary_directory() -> str | None:
    """Where an index may keep what it does not hold in memory while it is made; None: where temporary files are."""
    try:
        with open_directory(user_cache(_PLACE)) as cache:
            return str(cache.path)
    except OSError:
        return None


@dataclass
class _Own:
    """An index that was made and could not be stored."""

    content: Arrays | None = None


def _make(made: Made, key: str, cache: Directory, build: Callable[[], Arrays], own: _Own) -> Arrays:
    """Build the index, store it and map it. ``own`` keeps what cannot be stored. Raises OSError, DataError."""
    array_file.remove_unused(cache, f"{made.name}.", keep="")  # of killed processes
    array_file.remove_unused(cache, made.prefix, keep=made.name, seconds=_OTHERS_SECONDS)  # of containers that are gone
    array_file.remove_unused(cache, _FAILED, keep="", seconds=_FAILED_SECONDS)
    try:
        content = build()
    except DataError as error:
        with contextlib.suppress(OSError):
            facts = {"error": str(error), "time": time.time()}
            array_file.write(cache, _FAILED + made.name, key, Arrays({}, facts))
        raise
    if made.key() != key:
        raise DataError(f"{', '.join(made.paths)!r:.300}: has changed while it was indexed; nobody may write to it")
    try:
        array_file.write(cache, made.name, key, content)
    except OSError:
        own.content = content
        raise
    del content
    found = array_file.read(cache, made.name, key)
    if found is None:
        raise OSError(f"{cache.path / made.name} is damaged or gone immediately after it was written")
    return found


def _raise_failure(made: Made, key: str, cache: Directory, begun: float) -> None:
    """Raise the DataError with which another process failed to make this index after ``begun``, when this one already
    waited. An earlier error is not used: the cause may be gone. Raises OSError."""
    failed = array_file.read(cache, _FAILED + made.name, key)
    if failed is not None and begun <= failed.facts["time"] <= time.time():
        raise DataError(failed.facts["error"])


def _fingerprint(path: str) -> list:
    """Size, times and a digest of the contents at three places. Raises DataError."""
    try:
        with safe_open.open_bytes(path, safe_open.CONTAINER) as file:
            found = os.fstat(file.fileno())
            size = found.st_size
            whole = size <= _READ_WHOLE
            places = [(0, size)] if whole else [(at, _LOOK_BYTES) for at in (0, size // 2, size - _LOOK_BYTES)]
            looked = b"".join(os.pread(file.fileno(), count, at) for at, count in places)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{printable(os.fsencode(path))}: cannot be opened: {reason}") from error
    return [size, found.st_mtime_ns, found.st_ctime_ns, hashlib.sha256(looked).hexdigest()]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # said by the one who reads it


def _node() -> str:
    return _digest([platform.node()])[:8]


def _digest(value: list) -> str:
    return hashlib.sha256(json.dumps(value).encode("utf-8", "surrogatepass")).hexdigest()
