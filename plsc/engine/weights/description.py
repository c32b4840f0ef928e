"""`plsc.json` of exported weights: what they are of, and size and hash of the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from plsc.checkpoint import Manifest
from plsc.files.hashes import FileEntry
from plsc.serving.description import WEIGHTS_FORMAT
from plsc.version import __version__


def describe_weights(
    manifest: Manifest, model: Mapping[str, Any], files: Mapping[str, FileEntry], **facts: Any
) -> bytes:
    """As JSON, indented for readers. manifest: of the checkpoint; model: the settings ``model``; facts: more of it."""
    data = {
        "format": WEIGHTS_FORMAT,
        "version": 1,
        "plsc_version": __version__,
        "step": manifest.step,
        "checkpoint": " ".join(entry.sha256 for _, entry in sorted(manifest.files.items())),
        "model": model,
        **facts,
        "files": {name: {"bytes": entry.num_bytes, "sha256": entry.sha256} for name, entry in files.items()},
    }
    return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()
