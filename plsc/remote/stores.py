"""A directory on another machine: what can be done with it, and which driver does it."""

from __future__ import annotations

from typing import Protocol

from plsc.config import Config
from plsc.files.hashes import FileEntry
from plsc.remote.fsspec_store import FsspecStore
from plsc.remote.hadoop_store import HadoopStore


class Store(Protocol):
    """The files below one address, named by their paths relative to it, with slashes.

    A method that fails raises whatever its driver does; FileNotFoundError and PermissionError mean what they say.
    """

    url: str

    def files(self) -> dict[str, int]:
        """{name: bytes} of every file, at any depth; empty where the address does not exist."""

    def read(self, name: str) -> bytes:
        """The whole of a small file."""

    def write(self, name: str, data: bytes) -> None:
        """A small file, in place of the one that is there."""

    def get(self, name: str, local: str) -> None:
        """Copy a file to a path of this machine."""

    def put(self, local: str, name: str) -> None:
        """Copy a file of this machine, in place of the one that is there."""

    def measure(self, name: str) -> FileEntry:
        """Size and SHA-256 of a file as it is read back."""

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""

    def redact(self, text: str) -> str:
        """A text without what must not be printed."""


def open_store(url: str, config: Config) -> Store:
    """The store at an address. Raises ConfigError where what it needs is not installed."""
    remote = config.remote
    on_fs = remote.fs_name is not None and url.startswith(remote.fs_name.rstrip("/") + "/")
    if on_fs or url.startswith("hdfs://"):
        return HadoopStore(url, remote.fs_name if on_fs else None, remote.fs_ugi)
    return FsspecStore(url)
