"""PPM without Pillow: the same pixels, and all other files are left to Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plsc.data import decode_image
from plsc.data.packing.pack import pack
from plsc.data.ppm import decode_ppm, encode_ppm
from plsc.errors import DataError
from tests.data.test_packing import listed, opened

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
FILE = encode_ppm(PIXELS)


def always(size) -> bool:
    return True


def test_files_are_those_of_pillow():
    saved = io.BytesIO()
    Image.fromarray(PIXELS).save(saved, "PPM")
    assert saved.getvalue() == FILE
    assert np.array_equal(decode_ppm(FILE, always), PIXELS) and np.array_equal(decode_image(FILE), PIXELS)
    grey = np.asarray(Image.fromarray(PIXELS).convert("L"))
    assert np.array_equal(decode_image(FILE, channels=1)[:, :, 0], grey)


def test_a_file_of_another_size_is_refused_by_its_size():
    assert decode_ppm(FILE, lambda size: size == (7, 5)) is None
    with pytest.raises(DataError, match="7 x 5"):
        decode_image(FILE, size=(7, 5))


@pytest.mark.parametrize("file", [
    FILE[:-1], FILE + b"\0", FILE.replace(b"255", b"254", 1), FILE.replace(b"P6\n", b"P6\n# a comment\n", 1),
    FILE.replace(b"P6", b"P5", 1), b"P6\n99999 99999\n255\n" + bytes(12), b"P6\n0 5\n255\n", b"",
])  # fmt: skip
def test_other_files_are_left_to_pillow(file):
    if file == b"P6\n0 5\n255\n":
        assert decode_ppm(file, lambda size: size[0] * size[1] > 0) is None
    else:
        assert decode_ppm(file, always) is None


@pytest.mark.parametrize("to", ["recordio", "tar", "lmdb", "list"])
def test_packed_as_pixels(tmp_path, to):
    """JPEG and grey images too: what is decoded is equal, in order, with the labels; an encoded container stays so."""
    pictures = []
    for number, (mode, kind) in enumerate([("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("P", "GIF")]):
        saved = io.BytesIO()
        values = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(values).convert(mode).save(saved, kind)
        pictures.append(saved.getvalue())
    source = listed(tmp_path / "list", [0, 1, 0, 2, 1], pictures)
    pack(source, to, str(tmp_path / "out"), pixels=True)
    packed = opened(tmp_path / "out", to)
    for index, picture in enumerate(pictures):
        image, label = packed.read(index)
        assert image[:3] == b"P6\n" and label == source.read(index)[1]
        for channels in (3, 1):
            assert np.array_equal(decode_image(image, channels=channels), decode_image(picture, channels=channels))


def test_half_packed_as_they_are_is_not_continued_as_pixels(tmp_path, monkeypatch):
    from plsc.data.packing import pack as packing

    def stop(*arguments):
        raise KeyboardInterrupt

    source = listed(tmp_path / "list")
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_compare", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(source, "tar", str(tmp_path / "out"))
    with pytest.raises(DataError, match="half packed; remove it"):
        pack(source, "tar", str(tmp_path / "out"), pixels=True)
