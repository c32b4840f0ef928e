"""Pickles that take memory, time or the process's stack: refused, or read in what their bytes take."""

from __future__ import annotations

import contextlib
import pickle
import tracemalloc

import numpy as np
import pytest

from plsc.errors import DataError
from plsc.evaluation.bin_file import load_bin

SAME = [True, False]


def _written(tmp_path, content):
    path = tmp_path / "set.bin"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


def _nested(depth):
    return b"\x80\x02)" + b"\x85" * depth


HOSTILE = {
    "a place of the memo far away": (b"\x80\x02]r\xff\xff\xff\x0b.", "a list of length 0"),
    "a place of the memo far away, as text": (b"\x80\x02]p99999999999999999999\n.", "a list of length 0"),
    "a place with many digits": (b"]p" + b"9" * 5000 + b"\n.", "a number of 5001 digits"),
    "a place in no memo": (b"\x80\x02j\xff\xff\xff\x0b.", "no pickle"),
    "a nested tuple as a key": (b"\x80\x02}" + _nested(2 * 10**5)[2:] + b"K\x01s.", "it uses a tuple as a key"),
    "nested tuples as keys": (b"\x80\x02}(" + _nested(2 * 10**5)[2:] + b"K\x01u.", "it uses a tuple as a key"),
    "a dict made with such a key": (b"\x80\x02(" + _nested(2 * 10**5)[2:] + b"K\x01d.", "it uses a tuple as a key"),
    "a set of nested tuples": (b"\x80\x04\x8f(" + _nested(2 * 10**5)[2:] + b"\x90.", "it tries to create objects"),
    "nothing but a nested tuple": (_nested(2 * 10**5) + b".", "a tuple of length 1, expected a pair"),
    "a long integer": (b"\x80\x02]\x8b\x88\x13\x00\x00" + b"\x7f" * 5000 + b"\x86.", "a number of 5000 bytes"),
    "a long integer of a byte's length": (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "a number of 255 bytes"),
    "digits": (b"L" + b"9" * 5000 + b"L\n.", "a number of 5002 digits"),
    "digits of a float": (b"F" + b"9" * 5000 + b"\n.", "a number of 5001 digits"),
    "bytes that are not there": (b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00a.", "it is shorter than a length"),
    "a bytearray that is not there": (b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00a.", "it is shorter than a length"),
    "a frame that is not there": (b"\x80\x04\x95\x00\x00\x00\x00\x00\x01\x00\x00].", "it is shorter than a length"),
    "a name of many lines": (b"\x80\x04\x8c\x03a\nb" + b"\x8c\xffa" + b"\n" * 254 + b"\x93.", r"load a\\nb"),
    "many keys": (b"\x80\x02}(" + b"".join(b"M" + i.to_bytes(2, "little") + b"N" for i in range(1001)) + b"u.",
                  "more than 1000 keys"),
    "keys of a list": (b"\x80\x02]K\x00K\x01s.", "something else than a dict"),
    "a list that is changed": (b"\x80\x02]}b.", "tries to change a list"),
    "what lies outside": (b"Pname\n.", "refused: it tries to create objects, or to load external ones"),
    "another unpickler's opcode": (b"\x80\x02\xff.", "unknown opcode"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_byte_makes_more_than_it_brings_along(tmp_path, kind):
    data, said = HOSTILE[kind]
    path = _written(tmp_path, data)
    with pytest.raises(DataError, match=said) as caught, _little_memory():
        load_bin(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


@contextlib.contextmanager
def _little_memory():
    """No more than 64 MiB on top of what is there now."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 * 2**20, peak


@pytest.mark.parametrize("how", ["bytes of protocol 2", "arrays"])
def test_one_large_picture_named_often_is_there_once(tmp_path, how):
    """1 MiB, named 1,000 times: a copy each would be 1 GiB."""
    picture = b"a" * 2**20
    if how == "arrays":
        whole = pickle.dumps(([np.frombuffer(picture, np.uint8)] * 1000, [True, False] * 250), 4)
        path = _written(tmp_path, whole)
    else:  # the text stands in the memo; each picture is a call that encodes it
        text = b"X" + len(picture).to_bytes(4, "little") + picture
        one = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
        flags = pickle.dumps([True, False] * 250, 2)[2:-1].replace(b"q\x00", b"")
        path = _written(tmp_path, b"\x80\x02" + text + b"q\x000](" + one * 1000 + b"e" + flags + b"\x86.")
    with _little_memory():
        pairs = load_bin(path)
    assert pairs.images == [picture] * 1000 and len({id(image) for image in pairs.images}) == 1


def test_stacks_of_pictures_are_not_taken_for_one(tmp_path):
    """Pictures of one array come into being as they are asked for: each has the place in memory of the one before."""
    stack = np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3)
    found = load_bin(_written(tmp_path, (stack, SAME))).images
    assert len(found) == 4 and all(np.array_equal(one, other) for one, other in zip(found, stack))
