"""Images that start programs or fill the memory: refused by what stands at their head."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from plsc.data import ImageListDataset, decode_image
from plsc.data.transforms import FORMATS, MAX_PIXELS
from plsc.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"


def encoded(width: int, height: int, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, kind)
    return stream.getvalue()


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of 60 bytes with these sides, as far as its head goes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_that_says(width: int, height: int) -> bytes:
    """A real JPEG whose head says other sides."""
    data = bytearray(encoded(8, 8, "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_that_says(width: int, height: int) -> bytes:
    data = bytearray(encoded(8, 8, "WEBP"))
    assert data[12:16] == b"VP8 "
    data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.fixture
def not_decoded(monkeypatch):
    """Fails where pixels are asked for."""

    def load(self):
        pytest.fail("it is decoded before its size is looked at")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    from PIL import WebPImagePlugin

    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "load", load)


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A `gs` on the PATH that tells when it was started."""
    told = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {told}\nexit 0\n")
    os.chmod(tmp_path / "bin" / "gs", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return told


def test_eps_starts_no_ghostscript(tmp_path, ghostscript):
    (tmp_path / "x.jpg").write_bytes(EPS)
    for source in (EPS, tmp_path / "x.jpg"):
        with pytest.raises(DataError, match="not an image in one of JPEG, PNG"):
            decode_image(source)
    (tmp_path / "label.txt").write_text("x.jpg\t0\n")
    with pytest.raises(DataError, match=r"label.txt:1: image 'x.jpg': not an image in one of"):
        ImageListDataset(tmp_path, "label.txt", 2, (3, 8, 8), 0).get(0, 0)
    assert not ghostscript.exists()


def test_every_format_is_taken(tmp_path):
    """So a format that Pillow has given another name is noticed."""
    colour = np.full((8, 8, 3), 200, np.uint8)
    for kind in FORMATS:
        stream = io.BytesIO()
        Image.fromarray(colour).save(stream, kind)
        found = decode_image(stream.getvalue(), size=(8, 8)).astype(int)
        assert found.shape == (8, 8, 3) and abs(found - 200).max() <= 3, kind  # JPEG rounds
    for kind in ("TGA", "ICO", "PCX", "SGI"):
        with pytest.raises(DataError, match="not an image in one of"):
            decode_image(encoded(8, 8, kind))


HUGE = {"PNG": png_that_says, "JPEG": jpeg_that_says, "WEBP": webp_that_says}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("sides", [(7072, 7072), (9500, 9500), (16000, 16000)])  # ours, Pillow's warning, its error
@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_image_is_refused_by_its_head(tmp_path, not_decoded, kind, sides):
    path = tmp_path / "x.jpg"
    path.write_bytes(HUGE[kind](*sides))
    assert path.stat().st_size < 2000
    with pytest.raises(DataError) as caught:
        decode_image(path)
    assert "x.jpg'" in str(caught.value) and f"{MAX_PIXELS:,}" in str(caught.value) and "\n" not in str(caught.value)
    assert f"{sides[0]:,} x {sides[1]:,}" in str(caught.value) or f"{sides[0] * sides[1]} pixels" in str(caught.value)


@pytest.mark.parametrize("kind", HUGE)
def test_in_training_only_its_own_size_is_decoded(tmp_path, not_decoded, kind):
    (tmp_path / "x.jpg").write_bytes(HUGE[kind](300, 200))
    (tmp_path / "label.txt").write_text("x.jpg\t0\n")
    with pytest.raises(DataError, match="label.txt:1: image 'x.jpg': is 300 x 200 .* requires 112 x 113"):
        ImageListDataset(tmp_path, "label.txt", 2, (3, 113, 112), 0).get(0, 0)


def test_the_sides_are_those_after_turning():
    turned = Image.Exif()
    turned[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (5, 9)).save(stream, "JPEG", exif=turned)
    assert decode_image(stream.getvalue(), size=(5, 9)).shape == (5, 9, 3)
    with pytest.raises(DataError, match="is 9 x 5 pixels .* requires 5 x 9"):
        decode_image(stream.getvalue(), size=(9, 5))
    with pytest.raises(DataError, match="is 9 x 5 pixels .* requires 7 x 6"):  # by the header
        decode_image(stream.getvalue(), size=(6, 7))
    with pytest.raises(DataError, match="requires 3 x 2"):
        decode_image(np.zeros((4, 4), np.uint8), size=(2, 3))


def test_a_image_of_the_users_own_is_bounded_too(not_decoded):
    image = Image.open(io.BytesIO(jpeg_that_says(9000, 9000)))
    with pytest.raises(DataError, match=f"is 9,000 x 9,000 .* the maximum is {MAX_PIXELS:,}"):
        decode_image(image)
