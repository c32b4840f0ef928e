"""Checkpoints: written by all ranks together, all or nothing; read on any number of ranks.

The layout on disk: docs/checkpoint_format.md.
"""

from __future__ import annotations

from plsc.checkpoint.averages import AVERAGED, LAST, average_name, has_averages, read_weights, uses_averages
from plsc.checkpoint.find import latest, open_checkpoint, resolve
from plsc.checkpoint.gathered import newest, newest_intact_of_places, ranges_of
from plsc.checkpoint.intact import newest_intact, restore_newest
from plsc.checkpoint.links import link
from plsc.checkpoint.manifest import META_KEYS, Manifest, read_manifest
from plsc.checkpoint.one_centre import keep_one_centre, require_centres_to_merge
from plsc.checkpoint.pending_rows import TOUCHED, WINDOW
from plsc.checkpoint.places import SHARED, Place, Places, find_places, remove_probes
from plsc.checkpoint.read import (
    Expected,
    ReadOptions,
    ReshardSource,
    check_fits,
    read_class_names,
    read_replicated,
    read_rows,
    read_window,
    verify_files,
)
from plsc.checkpoint.reshard import merge, reshard
from plsc.checkpoint.retention import remove_old
from plsc.checkpoint.tensors import ArrayShard, ShardSource, TensorSpec
from plsc.checkpoint.write import RankTensors, save
from plsc.parallel.ranks import OneRank

__all__ = [
    "AVERAGED",
    "LAST",
    "META_KEYS",
    "SHARED",
    "TOUCHED",
    "WINDOW",
    "ArrayShard",
    "Expected",
    "Manifest",
    "OneRank",
    "Place",
    "Places",
    "RankTensors",
    "ReadOptions",
    "ReshardSource",
    "ShardSource",
    "TensorSpec",
    "average_name",
    "check_fits",
    "find_places",
    "has_averages",
    "keep_one_centre",
    "latest",
    "link",
    "merge",
    "newest",
    "newest_intact",
    "newest_intact_of_places",
    "open_checkpoint",
    "restore_newest",
    "ranges_of",
    "read_class_names",
    "read_manifest",
    "read_replicated",
    "read_rows",
    "read_weights",
    "read_window",
    "remove_old",
    "remove_probes",
    "require_centres_to_merge",
    "reshard",
    "resolve",
    "save",
    "uses_averages",
    "verify_files",
]
