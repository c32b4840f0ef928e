"""The note in a checkpoint whose shards are on the disks of several machines: where those are that are not here.

It is written for people and for messages. The files are found by what each place has, not by this note.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from plsc.checkpoint.layout import ELSEWHERE
from plsc.checkpoint.manifest import Manifest
from plsc.files import plain_json, safe_open
from plsc.files.atomic import write_bytes


def write_note(directory: str, where: Mapping[str, str]) -> None:
    """Say in a checkpoint where its other files are, {file: "host:/run"}. Without any there is no note."""
    if where or os.path.exists(os.path.join(directory, ELSEWHERE)):
        write_bytes(os.path.join(directory, ELSEWHERE), json.dumps(where, indent=1).encode() + b"\n")


def read_note(directory: str) -> dict[str, str]:
    """What the note says; nothing where there is none, or one that cannot be read."""
    try:
        found = plain_json.loads(safe_open.read_bytes(os.path.join(directory, ELSEWHERE), safe_open.MANIFEST))
    except (OSError, ValueError):
        return {}
    return {name: str(where)[:200] for name, where in found.items()} if isinstance(found, dict) else {}


def copy_note(directory: str, target: str) -> None:
    write_note(target, read_note(directory))


def present(directory: str, manifest: Manifest) -> list[str]:
    """The files of a checkpoint that should be here: all but those that the note names and that are not here."""
    note = read_note(directory)
    return [name for name in manifest.files if name not in note or os.path.exists(os.path.join(directory, name))]


def where_it_is(directory: str, name: str) -> str:
    """The end of a message about a file that cannot be read: where it is, if the note says so."""
    note = read_note(directory)
    if name not in note:
        return ""
    return (
        f"; the run kept this and {len(note) - 1} more on the disks of other machines, this one in "
        f"{note[name]}; go on with `resume: auto` on these machines, copy the files of all of them into one directory, "
        "or move this checkpoint away"
    )
