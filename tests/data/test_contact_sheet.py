"""plsc show-data: the sheet shows what the model is given, with labels and names, on a page that fetches nothing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from plsc.config import Config
from plsc.data import GlobalBatchSampler, SampleOrder, normalise
from plsc.data.contact_sheet import denormalise, samples, sheet_html, sheet_png
from plsc.data.opening import open_dataset
from tests import tool_kit
from tests.data.container_kit import images, plain, write_records, write_shards

NAMES = ['a <script>alert("1")</script>', "b & 'c'", "日本"]
SIDE = 16


class Page(HTMLParser):
    """Its tags, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data

    def pictures(self) -> list[np.ndarray]:
        """The pixels of its images."""
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        assert all(source.startswith("data:image/") for source in sources)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2])))) for one in sources]


def require_nothing_outside(page: str) -> Page:
    """No script, no address, and a policy that forbids both."""
    found = Page(page)
    assert {tag for tag, _ in found.tags} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "figure", "img", "figcaption", "br",
        "table", "tr", "th", "td",
    }  # fmt: skip
    assert "default-src 'none'; img-src data:" in page
    without_pictures = re.sub(r'src="data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+"', "", page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:|src=|href=", without_pictures)
    return found


@pytest.fixture
def faces(tmp_path):
    """A folder of three identities, eight images of each; one of them is damaged."""
    for identity, name in enumerate(NAMES):
        (tmp_path / "faces" / name.replace("/", "\\")).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng([identity, number]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / name.replace("/", "\\") / f"{number}.png")
    return tmp_path / "faces"


def settings(directory, **data) -> Config:
    return Config.from_dict({"seed": 5, "model": {"image_shape": [3, SIDE, SIDE]},
                             "data": {"dataset_dir": str(directory), **data}})  # fmt: skip


@pytest.mark.parametrize(("epoch", "window"), [(0, None), (2, None), (1, 8)])
def test_a_sheet_shows_what_a_run_reads(faces, epoch, window):
    """In the order of the run, from its first batch on, decoded, augmented and normalised: the batch itself."""
    data = open_dataset(settings(faces, augmentations="strong"), print)
    shown = samples(data, 5, 10, epoch, SampleOrder(window=window))
    order = GlobalBatchSampler(24, 6, 0, 1, seed=5, order=SampleOrder(window=window))
    expected = np.concatenate([order.indices(4 * epoch + step)[1] for step in range(2)])[:10]
    assert [one.index for one in shown] == expected.tolist()
    for one in shown:
        image, label = data.get(one.index, epoch)
        np.testing.assert_array_equal(normalise(one.pixels, 127.5), image)
        assert (one.label, one.name) == (label, sorted(NAMES, key=str.encode)[label].replace("/", "\\"))
    pictures = require_nothing_outside(sheet_html(shown, "t")).pictures()
    for picture, one in zip(pictures, shown):
        np.testing.assert_array_equal(picture, one.pixels)


@pytest.mark.parametrize("pixel_std", [127.5, 128.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_from_normalised_ones(pixel_std, channels):
    """float32 holds 24 bits: the rounding of x / std * std is far below half a level."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(channels, axis=2)
    np.testing.assert_array_equal(denormalise(normalise(pixels, pixel_std), pixel_std), pixels)


def test_png_holds_the_images_beside_one_another(faces):
    shown = samples(open_dataset(settings(faces, augmentations="none"), print), 5, 7)
    sheet = np.asarray(Image.open(io.BytesIO(sheet_png(shown))))
    places = []
    for one in shown:
        corners = np.argwhere((sheet == one.pixels[0, 0]).all(axis=2)).tolist()
        found = [(row, column) for row, column in corners
                 if np.array_equal(sheet[row : row + SIDE, column : column + SIDE], one.pixels)]  # fmt: skip
        assert len(found) == 1
        places += found
    assert places == sorted(places)  # row by row
    for row, column in places:  # a label below each
        assert (sheet[row + SIDE : row + SIDE + 13, column : column + 40] < 128).any()


def test_the_command_writes_both(faces, tmp_path):
    (faces / NAMES[1] / "3.png").write_bytes(b"no image")
    (tmp_path / "x.yaml").write_text(
        f"seed: 5\nmodel: {{image_shape: [3, {SIDE}, {SIDE}]}}\n"
        f"data: {{dataset_dir: {faces}, augmentations: adaface}}\n"
    )
    words = ["-c", tmp_path / "x.yaml", "--html", tmp_path / "a.html", "--png", tmp_path / "a.png"]
    done = tool_kit.plsc("show-data", *words)
    assert done.returncode == 1 and "24 images, 1 cannot be used" in done.stdout and "3.png" in done.stderr
    page = (tmp_path / "a.html").read_text()
    found = require_nothing_outside(page)
    assert len(found.pictures()) == 23 and "cannot be used" in found.words
    for name in NAMES:
        assert name.replace("/", "\\") in found.words
    assert "label 0" in found.words and Image.open(tmp_path / "a.png").size[0] > SIDE
    done = tool_kit.plsc("show-data", *words, "--images", "2", "--epoch", "3")
    assert done.returncode in (0, 1) and len(Page((tmp_path / "a.html").read_text()).pictures()) in (1, 2)


@pytest.mark.parametrize("kind", ["recordio", "tar", "synthetic", "grey"])
def test_any_source(tmp_path, kind):
    pictures, labels = images(6), [0, 1, 2, 0, 1, 2]
    if kind == "recordio":
        write_records(tmp_path / "in", plain(pictures, labels))
    elif kind == "tar":
        write_shards(tmp_path / "in", pictures, labels)
    else:
        (tmp_path / "in").mkdir()
        for number, picture in enumerate(pictures):
            (tmp_path / "in" / f"{number}.png").write_bytes(picture)
        (tmp_path / "in" / "label.txt").write_text("".join(f"{n}.png {label}\n" for n, label in enumerate(labels)))
    channels = 1 if kind == "grey" else 3
    words = [f"data.dataset_dir={tmp_path / 'in'}", f"model.image_shape=[{channels},8,8]", "seed=1"]
    if kind == "synthetic":
        words += ["data.dataset=synthetic", "data.train_image_num=6", "classifier.num_classes=3"]
    options = [word for one in words for word in ("-o", one)]
    done = tool_kit.plsc("show-data", *options, "--html", tmp_path / "a.html", "--png", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    found = Page((tmp_path / "a.html").read_text())
    assert len(found.pictures()) == 6 and found.pictures()[0].shape == ((8, 8) if channels == 1 else (8, 8, 3))
    assert sorted(re.findall(r"label (\d)", found.words)) == ["0", "0", "1", "1", "2", "2"]


def test_a_sheet_is_not_put_among_the_images(faces):
    """It would be one of them in the next run."""
    place = next(each for each in sorted(faces.iterdir()) if each.is_dir()) / "sheet.png"
    words = ["-o", f"data.dataset_dir={faces}", "-o", f"model.image_shape=[3,{SIDE},{SIDE}]", "--png", place]
    done = tool_kit.plsc("show-data", *words)
    assert done.returncode == 2 and "sheet.png: would be taken for one of the images; give a place" in done.stderr
    assert not place.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--images", "0"], "--images 0: must be from 1 to 10000"),
        (["--epoch", "-1"], "--epoch -1: must be from 0 to"),
        (["--html", "/nowhere/a.html"], "--html /nowhere/a.html: the directory /nowhere does not exist"),
        (["-o", "model.image_shape=[3,1024,1024]", "--images", "1000"], "at most 170"),
        (["-o", "model.image_shape=[2,8,8]"], "only 1 or 3 channels can be shown"),
    ],
)
def test_what_cannot_be_shown_is_said(words, text, tmp_path):
    synthetic = ["-o", "data.dataset=synthetic", "-o", "data.train_image_num=9", "--png", tmp_path / "a.png"]
    done = tool_kit.plsc("show-data", *synthetic, *words)
    assert done.returncode != 0 and text in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "a.png").exists()
