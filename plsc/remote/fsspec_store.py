"""S3 and local directories, through fsspec."""

from __future__ import annotations

import importlib

from plsc.config.urls import masked
from plsc.errors import ConfigError
from plsc.extras import install
from plsc.files.hashes import READ_BYTES, FileEntry, IncrementalHash

# The package that each scheme needs besides fsspec.
DRIVERS = {"s3": "s3fs", "file": "fsspec"}


class FsspecStore:
    """See plsc.remote.stores.Store. S3 reads key, region and endpoint from AWS's environment variables or files."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        scheme = url.split("://", 1)[0]
        try:
            fsspec = importlib.import_module("fsspec")
            importlib.import_module(DRIVERS[scheme])
        except ImportError as error:
            raise ConfigError(
                f"{self.url}: needs the package {DRIVERS[scheme]} ({error}): {install('remote')}"
            ) from None
        # No cached listings: other ranks and runs write to the same place.
        options = {"auto_mkdir": True} if scheme == "file" else {}
        self._fs = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
        self._root = self._fs._strip_protocol(self.url)

    def files(self) -> dict[str, int]:
        try:
            found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        start = self._root.rstrip("/") + "/"
        return {path[len(start) :]: int(info["size"]) for path, info in found.items() if path.startswith(start)}

    def read(self, name: str) -> bytes:
        return self._fs.cat_file(self._path(name))

    def write(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data)

    def get(self, name: str, local: str) -> None:
        self._fs.get_file(self._path(name), local)

    def put(self, local: str, name: str) -> None:
        self._fs.put_file(local, self._path(name))

    def measure(self, name: str) -> FileEntry:
        digest = IncrementalHash()
        with self._fs.open(self._path(name), "rb", block_size=READ_BYTES) as file:
            while block := file.read(READ_BYTES):
                digest.add(block)
        return digest.entry()

    def delete(self, name: str) -> None:
        if self._fs.exists(self._path(name)):
            self._fs.rm_file(self._path(name))

    def redact(self, text: str) -> str:
        return masked(text)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
