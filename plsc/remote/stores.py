"""The protocol of remote directories, and the driver of each address."""

from __future__ import annotations

from typing import Protocol

from plsc.config import Config
from plsc.files.hashes import FileEntry
from plsc.remote.fsspec_store import FsspecStore
from plsc.remote.hadoop_store import HadoopStore


class Store(Protocol):
    """The files below one address, named by their relative paths with slashes.

    Methods raise the exceptions of their driver, FileNotFoundError and PermissionError among them.
    """

    url: str

    def files(self) -> dict[str, int]:
        """Return {name: size in bytes} of all files, at any depth; empty if the address does not exist."""

    def read(self, name: str) -> bytes:
        """Read a small file."""

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, or replace it."""

    def get(self, name: str, local: str) -> None:
        """Download a file to a local path."""

    def put(self, local: str, name: str) -> None:
        """Upload a local file, or replace it."""

    def measure(self, name: str) -> FileEntry:
        """Read a file back and return its size and SHA-256."""

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""

    def redact(self, text: str) -> str:
        """Return a text without secrets."""


def open_store(url: str, config: Config) -> Store:
    """Open the store of an address. Raises ConfigError if its driver is not installed."""
    remote = config.remote
    on_fs = remote.fs_name is not None and url.startswith(remote.fs_name.rstrip("/") + "/")
    if on_fs or url.startswith("hdfs://"):
        return HadoopStore(url, remote.fs_name if on_fs else None, remote.fs_ugi)
    return FsspecStore(url)
