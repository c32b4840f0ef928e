"""The page of a verification, looked at in a browser: headless Chromium, on a desktop, on a phone, in the dark."""

from __future__ import annotations

import re

import numpy as np
import pytest

from plsc.evaluation.page import write_page
from tests.evaluation import page_kit as kit

LIGHT = {"same": (0x1F, 0x77, 0xB4), "different": (0xD9, 0x66, 0x0A), "roc": (0x7B, 0x3F, 0xB5), "paper": (255,) * 3}
DARK = {"same": (0x5F, 0xB0, 0xEA), "different": (0xF5, 0x9A, 0x4A), "roc": (0xC0, 0x8C, 0xF0),
        "paper": (0x14, 0x18, 0x1F)}  # fmt: skip
DARK_OPTION = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the file, what it shows)."""
    one, _, _ = kit.made_up(2000, "<i>pairs</i> & others", worst=4)
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, [one], "net")
    return path, one


def where(shot: np.ndarray, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of a colour; 2 of 255 apart at most, as rounding in the browser may make them."""
    return np.nonzero((np.abs(shot.astype(int) - colour) <= 2).all(axis=2))


def curves(shot: np.ndarray, colours: dict) -> dict[str, tuple[int, int, int, int]]:
    """{curve: (top, bottom, left, right)} of the three curves, each drawn over most of its chart."""
    found = {}
    for name in ("roc", "same", "different"):
        rows, columns = where(shot, colours[name])
        assert len(rows), f"no pixel has the colour of {name}"
        found[name] = (rows.min(), rows.max(), columns.min(), columns.max())
    return found


@pytest.mark.parametrize("colours, options", [(LIGHT, ()), (DARK, (DARK_OPTION,))], ids=["light", "dark"])
def test_desktop(made, colours, options):
    shot = kit.screenshot(made[0], 1100, 1000, *options)
    assert shot.shape == (1000, 1100, 3)
    assert tuple(shot[0, 0]) == colours["paper"]
    top, bottom, left, right = curves(shot, colours)["roc"]
    # measured: 396 columns and 234 rows; the chart is 500 pixels wide
    assert right - left > 350 and bottom - top > 100
    beside = shot[top - 2 : bottom + 3, right + 30 :]  # the other chart, without its key above and the pairs below
    for name in ("same", "different"):
        rows, columns = where(beside, colours[name])
        assert len(set(columns)) > 150 and np.ptp(rows) > 80, name
    same, different = (where(beside, colours[name])[1] for name in ("same", "different"))
    assert np.median(same) > np.median(different)  # pairs of one identity have the higher scores, to the right


def test_phone(made):
    shot = kit.screenshot(made[0], 390, 2200)
    assert shot.shape == (2200, 390, 3)
    found = curves(shot, LIGHT)
    assert found["roc"][1] < found["same"][0] + 400 and found["roc"][3] - found["roc"][2] > 230
    below = shot[found["roc"][1] + 60 :]  # the score chart is below the ROC, as wide as that
    assert len(set(where(below, LIGHT["different"])[1])) > 100
    assert (shot[:, -10:] == 255).all(), "something reaches beyond the right edge"


def test_images_are_those_of_the_worst_pairs(made):
    """The four cards: both images of a pair side by side, in the order of the file."""
    path, one = made
    shot = kit.screenshot(path, 1100, 1600)
    for mistake in one.mistakes:
        for side in (0, 1):
            colour = kit.colour_of(2 * mistake.pair + side)
            near = (np.abs(shot.astype(int) - colour) <= 6).all(axis=2)  # JPEG turns colours by a few of 255
            assert near.sum() > 5000, f"pair {mistake.pair}: picture {side} is not there"


def test_the_document_holds_the_figures(made):
    path, one = made
    document = kit.browse(path, "--dump-dom")
    text = re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", document, flags=re.DOTALL))
    result = one.result
    for figure in (f"{100 * result.accuracy:.2f} % +- {100 * result.accuracy_std:.2f}", f"AUC {result.auc:.5f}",
                   f"EER {result.eer:.5f}", f"TAR at FAR 0.01 {result.tar_at_far[1e-2]:.4f}",
                   "TAR at FAR 0.0001 too few pairs", "&lt;i&gt;pairs&lt;/i&gt; &amp; others",
                   f"pair {one.mistakes[0].pair}: score {one.mistakes[0].score:.4f}"):  # fmt: skip
        assert figure in text, figure
    assert "<i>" not in document
