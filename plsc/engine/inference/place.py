"""A directory of results that appears whole: written aside, then renamed."""

from __future__ import annotations

import os
import shutil

from plsc.checkpoint.files import sync_dir
from plsc.errors import ConfigError


def aside(final: str) -> str:
    """Where the results for the directory ``final`` are written before they are complete."""
    return final + ".unfinished"


def check_free(final: str, marker: str) -> None:
    """Raise ConfigError where ``final`` holds something else than earlier results, which a file ``marker`` tells."""
    if not os.path.lexists(final) or os.path.isfile(os.path.join(final, marker)):
        return
    if not os.path.isdir(final) or os.listdir(final):
        raise ConfigError(
            f"{final}: is there already and holds no {marker}, so that it is not overwritten; move it away or choose "
            "another model_save_dir"
        )


def start_anew(final: str) -> str:
    """An empty directory to write to, in place of what an interrupted run left there."""
    unfinished = aside(final)
    if os.path.isdir(unfinished):
        shutil.rmtree(unfinished)
    os.makedirs(unfinished)
    return unfinished


def publish(final: str) -> None:
    """Put what was written aside in the place of ``final``.

    A first result appears by one rename. An earlier one is moved away just before; a kill between the two renames
    loses neither: both lie beside the empty place, as ``.replaced`` and ``.unfinished``.
    """
    unfinished, replaced = aside(final), final + ".replaced"
    for name in os.listdir(unfinished):
        _flush(os.path.join(unfinished, name))
    sync_dir(unfinished)
    if os.path.lexists(final):
        if os.path.isdir(replaced):
            shutil.rmtree(replaced)
        os.rename(final, replaced)
    os.rename(unfinished, final)
    sync_dir(os.path.dirname(final))
    shutil.rmtree(replaced, ignore_errors=True)


def _flush(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that somebody put there is not waited for
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
