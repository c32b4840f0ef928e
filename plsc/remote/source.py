"""A complete checkpoint or export at an address, with its list of files: the manifest, or `upload.json`."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass

from plsc import checkpoint
from plsc.checkpoint import layout
from plsc.errors import CheckpointError
from plsc.files import plain_json, safe_open
from plsc.files.hashes import FileEntry, hash_bytes, write_new
from plsc.remote.stores import Store
from plsc.remote.transfer import download, with_retries

UPLOADED = "upload.json"
FORMAT, VERSION = "plsc-upload", 1


def upload_list(files: dict[str, FileEntry]) -> bytes:
    """The contents of `upload.json`: name, size and SHA-256 of every other file."""
    entries = {name: {"bytes": entry.num_bytes, "sha256": entry.sha256} for name, entry in files.items()}
    return (json.dumps({"format": FORMAT, "version": VERSION, "files": entries}, indent=1) + "\n").encode()


@dataclass(frozen=True)
class Source:
    """A complete checkpoint or export at an address.

    prefix: "", or the path below the address, with a slash at its end. markers: {name: contents} of the files that
    make a copy complete; the last one is written last.
    """

    store: Store
    prefix: str
    markers: dict[str, str]

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.prefix}".rstrip("/")

    @property
    def name(self) -> str:
        """A name such as step_00012000_0a1b2c3d4e5f, which ends with the hash of the list of files."""
        last = list(self.markers.values())[-1]
        kind = "export" if UPLOADED in self.markers else layout.step_name(json.loads(last)["step"])
        return f"{kind}_{hash_bytes(last.encode())[:12]}"

    def entries(self) -> dict[str, FileEntry]:
        """Size and SHA-256 of every file that is not in `markers`. Raises CheckpointError that names the address."""
        if UPLOADED in self.markers:
            return _parse_upload_list(f"{self.url}/{UPLOADED}", self.markers[UPLOADED])
        with tempfile.TemporaryDirectory(prefix="plsc_") as directory:
            self.write_markers(directory)
            try:
                return checkpoint.read_manifest(directory).files
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(directory, self.url)) from None

    def write_markers(self, directory: str) -> None:
        """Write the files that mark a copy as complete."""
        for name, text in self.markers.items():
            write_new(os.path.join(directory, name), text.encode())

    def has_markers(self, directory: str) -> bool:
        """Whether a directory has the same markers."""
        for name, text in self.markers.items():
            try:
                if safe_open.read_bytes(os.path.join(directory, name), safe_open.MANIFEST) != text.encode():
                    return False
            except OSError:
                return False
        return True

    def copy(self, name: str, part: str) -> None:
        """Download one file into a directory and check it. Raises CheckpointError."""
        local = os.path.join(part, name)
        os.makedirs(os.path.dirname(local), exist_ok=True)
        download(self.store, self.prefix + name, local, self.entries()[name])


def read_source(store: Store, prefix: str, files: dict[str, int]) -> Source:
    """Read the source at `prefix`. Raises CheckpointError unless all of its files exist with the right size."""

    def read(name: str) -> str:
        url = f"{store.url}/{prefix}{name}"
        if files.get(prefix + name, 0) > safe_open.MANIFEST:
            raise CheckpointError(f"{url}: has {files[prefix + name]:,} bytes; allowed: {safe_open.MANIFEST:,}")
        return with_retries(store, url, lambda: store.read(prefix + name)).decode(errors="replace")

    is_export = prefix + layout.MANIFEST not in files
    names = [UPLOADED] if is_export else [layout.MANIFEST_SUM, layout.MANIFEST]
    source = Source(store, prefix, {name: read(name) for name in names})
    for name, entry in source.entries().items():
        found = files.get(prefix + name)
        if found != entry.num_bytes:
            size = "missing" if found is None else f"{found:,} bytes"
            raise CheckpointError(f"{source.url}/{name}: {size}, expected {entry.num_bytes:,} bytes: incomplete")
    return source


def _parse_upload_list(where: str, text: str) -> dict[str, FileEntry]:
    """Parse an `upload.json`. Only plain names below its directory are accepted."""
    try:
        data = plain_json.loads(text)
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise ValueError
        entries = {name: FileEntry(entry["bytes"], entry["sha256"]) for name, entry in data["files"].items()}
        if not all(_is_plain_name(name) and _is_entry(entry) for name, entry in entries.items()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{where}: damaged, or not written by this PLSC") from None
    return entries


def _is_entry(entry: FileEntry) -> bool:
    return type(entry.num_bytes) is int and entry.num_bytes >= 0 and isinstance(entry.sha256, str)


def _is_plain_name(name: str) -> bool:
    return all(part not in ("", ".", "..") for part in name.split("/")) and "\0" not in name and name != UPLOADED
