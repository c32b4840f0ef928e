"""Copies of checkpoints and exported models in remote storage: see docs/remote.md."""

from __future__ import annotations

from plsc.remote.addresses import Copying, save_url, start_url, uploads_saves
from plsc.remote.fetch import fetch_checkpoint, fetch_initial_checkpoint, newest_copy, warn_of_newer_copies
from plsc.remote.publishing import check_destination, publish, publish_checkpoints, publish_save
from plsc.remote.stores import Store, open_store

__all__ = [
    "Copying",
    "Store",
    "check_destination",
    "fetch_checkpoint",
    "fetch_initial_checkpoint",
    "newest_copy",
    "open_store",
    "publish",
    "publish_checkpoints",
    "publish_save",
    "save_url",
    "start_url",
    "uploads_saves",
    "warn_of_newer_copies",
]
