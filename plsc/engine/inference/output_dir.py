"""A directory of results that appears whole: written aside, then renamed."""

from __future__ import annotations

import os
import shutil

from plsc.errors import ConfigError
from plsc.files.atomic import flush_path, put_directory, remove_temporaries, restore


def unfinished_dir(final: str) -> str:
    """Where the results for the directory ``final`` are written before they are complete."""
    return final + ".unfinished"


def check_free(final: str, marker: str) -> None:
    """Raise ConfigError where ``final`` holds something else than earlier results, which a file ``marker`` tells.

    Earlier results that a killed ``publish`` had moved away get their name back.
    """
    restore(final, _replaced(final))
    if not os.path.lexists(final) or os.path.isfile(os.path.join(final, marker)):
        return
    if not os.path.isdir(final) or os.listdir(final):
        raise ConfigError(
            f"{final}: is there already and holds no {marker}, so that it is not overwritten; move it away or choose "
            "another model_save_dir"
        )


def create_unfinished(final: str) -> str:
    """An empty directory to write to, in place of what an interrupted run left there."""
    unfinished = unfinished_dir(final)
    if os.path.isdir(unfinished):
        shutil.rmtree(unfinished)
    os.makedirs(unfinished)
    return unfinished


def publish(final: str) -> None:
    """Put what was written aside in the place of ``final``.

    A first result appears by one rename. An earlier one is moved away just before; after a kill between the two renames
    both lie beside the empty place, and the next ``check_free`` puts the earlier one back.
    """
    unfinished, replaced = unfinished_dir(final), _replaced(final)
    remove_temporaries(unfinished)
    for name in os.listdir(unfinished):
        flush_path(os.path.join(unfinished, name))
    if os.path.lexists(final) and os.path.isdir(replaced):
        shutil.rmtree(replaced)
    put_directory(unfinished, final, replaced)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(final: str) -> str:
    return final + ".replaced"
