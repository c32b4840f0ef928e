"""A file of arrays is what was written, or it is not used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from plsc.files import array_file
from plsc.files.array_file import Arrays
from plsc.files.private_directory import open_directory
from plsc.files.texts import HeldText

CONTENT = Arrays(
    {
        "places": np.arange(1000, dtype=np.int64) * 3, "labels": np.arange(7, dtype=np.int32),
        "none": np.empty(0, np.uint32), "bytes": np.arange(5, dtype=np.uint8),
    },
    {"sizes": [1, 2], "classes": None},
    {"text": HeldText(b"some text" * 9), "empty": HeldText(b"")},
)  # fmt: skip


@pytest.fixture
def cache(tmp_path):
    with open_directory(os.path.realpath(tmp_path / "cache")) as directory:
        yield directory


def test_what_was_written_is_mapped(cache):
    assert array_file.read(cache, "x", "key") is None
    array_file.write(cache, "x", "key", CONTENT)
    found = array_file.read(cache, "x", "key")
    assert found.facts == CONTENT.facts and list(found.arrays) == list(CONTENT.arrays)
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(array, CONTENT.arrays[name], strict=True)
        assert not array.flags.writeable
    texts = {name: (len(text), text.read(0, 99), text.read(7, 9)) for name, text in found.texts.items()}
    assert texts == {"text": (81, b"some text" * 9, b"xt"), "empty": (0, b"", b"")}
    assert array_file.read(cache, "x", "another key") is None
    assert sorted(os.listdir(cache.path)) == ["x"] and stat.S_IMODE(os.stat(cache.path / "x").st_mode) == 0o600


def test_a_text_of_a_file_that_is_replaced(cache):
    """It is read from the old one, which nobody removes while it is used."""
    array_file.write(cache, "x", "key", CONTENT)
    text = array_file.read(cache, "x", "key").texts["text"]
    array_file.remove_unused(cache, "x", keep="")
    assert os.listdir(cache.path) == ["x"]
    array_file.write(cache, "x", "new", Arrays({}))
    assert text.read(5, 9) == b"text"
    handles = len(os.listdir("/proc/self/fd"))
    del text
    assert len(os.listdir("/proc/self/fd")) == handles - 1


def test_a_mapping_outlives_the_file(cache):
    array_file.write(cache, "x", "key", CONTENT)
    old = array_file.read(cache, "x", "key")
    array_file.write(cache, "x", "new", Arrays({"places": np.zeros(1000, np.int64)}))
    np.testing.assert_array_equal(old.arrays["places"], CONTENT.arrays["places"])


def test_no_damage_goes_unseen(cache):
    """Each byte that means something, changed; the padding between the arrays means nothing."""
    array_file.write(cache, "x", "key", CONTENT)
    path = Path(cache.path / "x")
    whole = path.read_bytes()
    ends = len(whole) - CONTENT.arrays["places"].nbytes - 64 - 64 - 128
    places = [*range(0, ends), ends + 5, len(whole) - 48, len(whole) - 128, len(whole) - 192, len(whole) - 256]
    unseen = []
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if array_file.read(cache, "x", "key") is not None:
            unseen.append(place)
    assert unseen == []
    for size in (0, 1, 30, 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert array_file.read(cache, "x", "key") is None, size
    path.write_bytes(whole + b"x")
    assert array_file.read(cache, "x", "key") is None


def test_what_others_can_write_is_refused(cache):
    array_file.write(cache, "x", "key", CONTENT)
    os.chmod(cache.path / "x", 0o666)
    with pytest.raises(PermissionError, match="writable by others"):
        array_file.read(cache, "x", "key")


def test_a_failed_write_leaves_the_old_file(cache, monkeypatch):
    array_file.write(cache, "x", "key", CONTENT)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_file, "flush", full)
    with pytest.raises(OSError, match="No space"):
        array_file.write(cache, "x", "new", CONTENT)
    assert os.listdir(cache.path) == ["x"] and array_file.read(cache, "x", "key") is not None


def test_what_nobody_maps_is_removed(cache):
    for name in ("order-1", "order-2", "order-3", "other"):
        array_file.write(cache, name, "key", CONTENT)
    used = array_file.read(cache, "order-2", "key")
    array_file.remove_unused(cache, "order-", keep="order-3")
    assert sorted(os.listdir(cache.path)) == ["order-2", "order-3", "other"]
    del used
    array_file.remove_unused(cache, "order-", keep="order-3")
    assert sorted(os.listdir(cache.path)) == ["order-3", "other"]


def test_what_was_used_lately_is_kept(cache):
    for name in ("x-1", "x-2", "x-3"):
        array_file.write(cache, name, "key", CONTENT)
        os.utime(cache.path / name, (1000, 1000))
    array_file.mark_used(cache, "x-2")
    array_file.mark_used(cache, "x-none")
    array_file.remove_unused(cache, "x-", keep="x-3", seconds=3600)
    assert sorted(os.listdir(cache.path)) == ["x-2", "x-3"]
