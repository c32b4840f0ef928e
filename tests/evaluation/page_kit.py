"""A verification set made up for the page, and a browser to look at it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from plsc.evaluation.page_data import PageData, page_data
from plsc.evaluation.verification import pair_distances, verify

NAMES = ("chromium", "chromium-browser", "google-chrome")


def made_up(
    pairs: int, name: str = "made up", noise: float = 1.2, **options
) -> tuple[PageData, np.ndarray, np.ndarray]:
    """(the set, its squared distances [P], flags [P]); image i is of one colour, `colour_of(i)`."""
    rng = np.random.default_rng(3)
    same = np.arange(pairs) % 2 == 0
    first, other = rng.standard_normal((2, pairs, 24))
    second = np.where(same[:, None], first + noise * other, other)
    embeddings = np.stack([first, second], axis=1).reshape(2 * pairs, 24)
    distance = pair_distances(embeddings)
    return page_data(name, verify(embeddings, same), distance, same, picture, **options), distance, same


def colour_of(index: int) -> tuple[int, int, int]:
    return (index * 37 % 256, index * 91 % 256, index * 53 % 256)


def picture(index: int) -> np.ndarray:
    """uint8 [200, 300, 3]: larger than what a page shows, and not square."""
    return np.broadcast_to(np.uint8(colour_of(index)), (200, 300, 3))


def browse(page: Path, *options: str) -> str:
    """What headless Chromium prints. Fails, saying what to install, where there is none."""
    program = next((found for found in map(shutil.which, NAMES) if found), None)
    assert program, f"none of {', '.join(NAMES)} is installed; this test needs one (Debian: apt-get install chromium)"
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
        "--force-color-profile=srgb", "--hide-scrollbars", "--virtual-time-budget=2000",
        f"--user-data-dir={page.parent / 'profile'}", *options, page.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def screenshot(page: Path, width: int, height: int, *options: str) -> np.ndarray:
    """uint8 [height, width, 3]: the page in a window of that size."""
    file = page.parent / "screenshot.png"
    browse(page, f"--window-size={width},{height}", f"--screenshot={file}", *options)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
