"""A directory of results that appears complete or not at all: written elsewhere, then renamed."""

from __future__ import annotations

import os
import shutil

from plsc.errors import ConfigError
from plsc.files.atomic import flush_path, put_directory, remove_temporaries, restore


def unfinished_dir(final: str) -> str:
    """The directory in which the results of ``final`` are written until they are complete."""
    return final + ".unfinished"


def check_free(final: str, marker: str) -> None:
    """Raise ConfigError where ``final`` holds anything but earlier results, which have a file ``marker``.

    Restores the name of earlier results that a killed ``publish`` had renamed.
    """
    restore(final, _replaced(final))
    if not os.path.lexists(final) or os.path.isfile(os.path.join(final, marker)):
        return
    if not os.path.isdir(final) or os.listdir(final):
        raise ConfigError(
            f"{final}: exists and holds no {marker}, so it is not overwritten; move it away or choose "
            "another model_save_dir"
        )


def create_unfinished(final: str) -> str:
    """Create an empty directory to write to, in place of one that an interrupted run left."""
    unfinished = unfinished_dir(final)
    if os.path.isdir(unfinished):
        shutil.rmtree(unfinished)
    os.makedirs(unfinished)
    return unfinished


def publish(final: str) -> None:
    """Rename the complete results to ``final``.

    An earlier result is renamed just before. After a kill between the two renames, the next ``check_free`` restores the
    earlier one.
    """
    unfinished, replaced = unfinished_dir(final), _replaced(final)
    remove_temporaries(unfinished)
    for place, directories, names in os.walk(unfinished):
        for name in (*names, *directories):
            flush_path(os.path.join(place, name))
    if os.path.lexists(final) and os.path.isdir(replaced):
        shutil.rmtree(replaced)
    put_directory(unfinished, final, replaced)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(final: str) -> str:
    return final + ".replaced"
