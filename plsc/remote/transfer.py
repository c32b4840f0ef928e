"""Copies of single files from and to a store, checked by size and SHA-256, with retries."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from plsc.checkpoint.collective import describe
from plsc.errors import CheckpointError, PlscError
from plsc.files.hashes import FileEntry, file_entry
from plsc.remote.stores import Store

log = logging.getLogger(__name__)

RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry

# Errors that a retry does not fix.
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, PlscError)
PERMANENT_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound")

T = TypeVar("T")


def with_retries(store: Store, what: str, action: Callable[[], T]) -> T:
    """Return the result of `action`, with at most five tries. Raises CheckpointError "<what>: <reason>", redacted."""
    for pause in (*RETRY_DELAYS, None):
        try:
            return action()
        except Exception as error:  # every driver has errors of its own
            reason = store.redact(describe(error))
            permanent = isinstance(error, PERMANENT) or type(error).__name__ in PERMANENT_NAMES
        if permanent or pause is None:
            tries = "" if permanent else f" (tried {len(RETRY_DELAYS) + 1} times)"
            raise CheckpointError(f"{what}: {reason}{tries}")
        log.warning("%s: %s; retry in %g s", what, reason, pause)
        time.sleep(pause)
    raise AssertionError("the last try either returns or raises")


def upload(store: Store, local: str, name: str, expected: FileEntry) -> None:
    """Upload a file and read it back. Raises CheckpointError, also if the local file is damaged."""
    _require_undamaged(local, measure_local(local), expected)

    def copy() -> None:
        store.put(local, name)
        _require_equal(store.measure(name), expected)

    with_retries(store, f"{store.url}/{name}", copy)


def upload_bytes(store: Store, name: str, data: bytes) -> None:
    """Write a small file and read it back. Raises CheckpointError."""

    def copy() -> None:
        store.write(name, data)
        if store.read(name) != data:
            raise OSError("the data read back differ from the data written")

    with_retries(store, f"{store.url}/{name}", copy)


def download(store: Store, name: str, local: str, expected: FileEntry) -> None:
    """Download a file to a local path. Raises CheckpointError."""

    def copy() -> None:
        if os.path.lexists(local):
            os.unlink(local)
        store.get(name, local)
        _require_equal(measure_local(local), expected)

    with_retries(store, f"{store.url}/{name}", copy)


def measure_local(path: str) -> FileEntry:
    """Size and SHA-256 of a local file. Raises CheckpointError."""
    try:
        return file_entry(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None


def _require_undamaged(path: str, found: FileEntry, expected: FileEntry) -> None:
    if found != expected:
        raise CheckpointError(f"{path}: size or SHA-256 differs from the manifest: damaged, not copied")


def _require_equal(found: FileEntry, expected: FileEntry) -> None:
    if found.num_bytes != expected.num_bytes:
        raise OSError(f"received {found.num_bytes:,} of {expected.num_bytes:,} bytes")
    if found.sha256 != expected.sha256:
        raise OSError("the SHA-256 of the received data differs")
